//! Empty folders, as an archive that holds nothing else: a workspace makes a folder when a file in it is stored, or when an archive names it.
//!
//! Always true: names of any length that a workspace takes fit into the archive.

use anyhow::{Context, Result};

/// What everything in an archive is rounded up to, and the longest name in a header of its own.
const BLOCK_BYTES: usize = 512;
const NAME_BYTES: usize = 100;

/// An archive of these folders.
pub(super) fn archive(folders: &[String]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for folder in folders {
        let name = format!("{folder}/");
        if name.len() > NAME_BYTES {
            // The whole name, as the content of an entry of its own.
            header(&mut out, "././@LongLink", b'L', name.len())?;
            out.extend_from_slice(name.as_bytes());
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        header(&mut out, &name, b'5', 0)?;
    }
    out.resize(out.len().saturating_add(2 * BLOCK_BYTES), 0);
    Ok(out)
}

fn header(out: &mut Vec<u8>, name: &str, kind: u8, length: usize) -> Result<()> {
    let mut block = [0_u8; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| -> Result<()> {
        let end = at.saturating_add(bytes.len());
        block.get_mut(at..end).context("a header is too small")?.copy_from_slice(bytes);
        Ok(())
    };
    put(0, name.as_bytes().get(..name.len().min(NAME_BYTES)).unwrap_or_default())?;
    for (at, text) in [(100, "0000755\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0"), (148, "        ")] {
        put(at, text.as_bytes())?;
    }
    put(124, format!("{length:011o}\0").as_bytes())?;
    put(156, &[kind])?;
    put(257, b"ustar  \0")?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block.get_mut(148..156).context("a header is too small")?.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    #[test]
    fn the_systems_own_tar_reads_the_folders() {
        use std::io::Write;
        let long = ["a", "b", "c"].map(|letter| letter.repeat(80)).join("/");
        let archive = super::archive(&["empty".to_owned(), "deep/er \u{e4}".to_owned(), long.clone()]).unwrap();
        let mut tar =
            Command::new("tar").args(["--quoting-style=literal", "-tf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("empty/\ndeep/er \u{e4}/\n{long}/\n"));
    }
}
