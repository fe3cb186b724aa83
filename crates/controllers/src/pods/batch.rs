//! Many writes at once, carefully.

use crate::Error;

/// Runs `count` steps in batches of 1, 2, 4, ... side by side and stops after the batch in which one failed, so that
/// a quota that refuses one Pod is not asked a thousand times. Returns how many succeeded and the first error.
pub(crate) async fn slow_start<F, P>(count: usize, step: F) -> (usize, Option<Error>)
where
    F: Fn(usize) -> P,
    P: Future<Output = Result<(), Error>>,
{
    let (mut done, mut next, mut size) = (0, 0, 1);
    while next < count {
        let end = (next + size).min(count);
        let results = futures::future::join_all((next..end).map(&step)).await;
        done += results.iter().filter(|r| r.is_ok()).count();
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (done, Some(error));
        }
        next = end;
        size *= 2;
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_after_the_failing_batch() {
        let refuse_from = |limit: usize| {
            move |index: usize| async move { if index < limit { Ok(()) } else { Err(Error::Waiting("no".into())) } }
        };
        for (count, limit, done) in [(10, 10, 10), (10, 0, 0), (10, 2, 2), (10, 5, 5), (0, 0, 0)] {
            let (ok, error) = slow_start(count, refuse_from(limit)).await;
            assert_eq!((ok, error.is_some()), (done, limit < count), "count {count}, limit {limit}");
        }
    }
}
