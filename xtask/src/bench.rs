pub(crate) fn bench(_: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("no bench")
}
