//! Requests that somebody else answers: kubelets, pods, Services and aggregated API servers.
//!
//! A request goes on as it came, without the client's credentials. An upgrade (exec, attach, port-forward, a WebSocket
//! of an application) is passed through raw: once both sides have switched, bytes are copied and not looked at.

pub(crate) mod backend;
pub(crate) mod forward;
pub(crate) mod tls;
