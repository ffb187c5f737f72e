//! `wafer cache`: what is in the cache, and how to empty it.

use anyhow::Context;
use bytesize::ByteSize;
use serde_json::json;
use std::io::Write;

use super::Cache;

/// Prints the entries, the last used first.
pub(crate) fn list(json: bool) -> anyhow::Result<()> {
    let cache = Cache::open(u64::MAX).context("there is no cache")?;
    let entries = cache.entries()?;
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    let text = if json {
        let all = json!({"directory": cache.directory(), "total_bytes": total, "entries": entries});
        serde_json::to_string_pretty(&all)?
    } else {
        let lines = entries.iter().map(|entry| {
            let days = entry.used.elapsed().map_or(0, |age| age.as_secs() / (24 * 60 * 60));
            let size = ByteSize(entry.size).to_string();
            format!("{size:>10}  used {days} days ago  {}", entry.name)
        });
        let total = format!("{:>10}  in {}", ByteSize(total).to_string(), cache.directory().display());
        lines.chain([total]).collect::<Vec<_>>().join("\n")
    };
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to stdout")
}

/// Deletes everything.
pub(crate) fn clear() -> anyhow::Result<()> {
    let cache = Cache::open(u64::MAX).context("there is no cache")?;
    let freed = cache.clear()?;
    eprintln!("freed {} in {}", ByteSize(freed), cache.directory().display());
    Ok(())
}
