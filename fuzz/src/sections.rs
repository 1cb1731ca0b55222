//! Several files in one input: `=== name`, and the lines of the file.

/// The files of an input, in order. What stands before the first name is none's.
pub(super) fn sections(data: &[u8]) -> Vec<(&str, Vec<u8>)> {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"=== ").map(<[u8]>::trim_ascii_end);
        match (name.map(str::from_utf8), files.last_mut()) {
            (Some(Ok(name)), _) => files.push((name, Vec::new())),
            (_, Some((_, content))) => content.extend_from_slice(line),
            (_, None) => {}
        }
    }
    files
}
