//! The command `backup`: requests a backup from the running server, or reads the data directory if
//! no server runs.
//!
//! Job: [`backup`] writes the file under a temporary name, verifies it, and renames it.
//! Invariant: the target is always a complete backup: the new one, or the one that it replaces.
//! Must never: rebuild or change a store.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use super::client::Client;
use crate::store::embedded::backup::directory::BackupWriter;
use crate::store::embedded::backup::format::{BackupEncoder, Header, Summary};
use crate::store::embedded::fs::OsDirectory;
use crate::store::embedded::recovery::verify::open_read_only;
use crate::store::embedded::state::checkpoint_step::Step;

/// Makes a backup of the store in `data_dir` as the file `to`; `progress` gets a short description
/// of each step.
///
/// # Errors
/// The reason as one sentence; the file `to` is then unchanged.
pub fn backup(
    data_dir: &Path,
    to: &Path,
    now_unix_s: u64,
    progress: &mut dyn FnMut(&str),
) -> Result<Summary> {
    let name = to
        .file_name()
        .filter(|_| to.symlink_metadata().is_ok_and(|found| found.is_file()) || !to.exists())
        .with_context(|| format!("--to {} is not a file's name", to.display()))?;
    let name = name.to_str().with_context(|| format!("--to {} is not UTF-8", to.display()))?;
    let disk = Arc::new(OsDirectory::parent_of(to));
    // The process id keeps two commands with the same target from writing to one file.
    let partial = format!(".{name}.{}", std::process::id());
    let create =
        || BackupWriter::create(disk, &partial).with_context(|| format!("--to {}", to.display()));
    let writer = match Client::connect(data_dir)? {
        Some(client) => {
            let mut writer = create()?;
            from_server(client, &mut writer, progress)?;
            writer
        }
        None => {
            let opened = open_read_only(data_dir)?;
            let mut writer = create()?;
            from_folder(opened, &mut writer, now_unix_s, progress)?;
            writer
        }
    };
    progress("verifying");
    writer.finish(name).with_context(|| format!("--to {}", to.display()))
}

fn from_server(
    mut client: Client,
    writer: &mut BackupWriter<OsDirectory>,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    progress("the server is making the backup");
    let mut received = 0;
    client.backup(&mut |chunk, length| {
        writer.write(chunk)?;
        received += chunk.len() as u64;
        progress(&format!("{received} of {length} bytes"));
        Ok(())
    })
}

fn from_folder(
    mut opened: crate::store::embedded::recovery::verify::ReadOnlyStore,
    writer: &mut BackupWriter<OsDirectory>,
    now_unix_s: u64,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let checkpointer = &mut opened.opened.checkpointer;
    let header = Header {
        store: opened.store,
        position: checkpointer.last_position(),
        created_unix_s: now_unix_s,
    };
    checkpointer.start_backup(BackupEncoder::new(&header));
    let mut written = 0;
    loop {
        match checkpointer.step().map_err(|trouble| anyhow!("{trouble:?}"))? {
            Step::Chunk { bytes, last } => {
                writer.write(&bytes)?;
                written += bytes.len();
                progress(&format!("{written} bytes"));
                if last {
                    return Ok(());
                }
            }
            _ => bail!("the backup ended early"),
        }
    }
}
