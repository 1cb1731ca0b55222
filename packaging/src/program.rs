//! Whether a program can run in an image that holds nothing else, and on what machine.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use object::elf::{EM_AARCH64, EM_X86_64, PT_INTERP};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};

use crate::image::Architecture;

/// What a statically linked program was built for; anything else is an error.
pub fn architecture(program: &Path) -> anyhow::Result<Architecture> {
    let name = program.display();
    let content = std::fs::read(program).with_context(|| format!("read {name}"))?;
    let file: ElfFile64<'_> =
        ElfFile64::parse(content.as_slice()).with_context(|| format!("{name} is no program"))?;
    let endian = file.endian();
    let mut segments = file.elf_program_headers().iter();
    ensure!(
        !segments.any(|segment| segment.p_type(endian) == PT_INTERP),
        "{name} is linked dynamically: build it with `-C target-feature=+crt-static` and `--target`"
    );
    match file.elf_header().e_machine(endian) {
        EM_X86_64 => Ok(Architecture::Amd64),
        EM_AARCH64 => Ok(Architecture::Arm64),
        machine => bail!("{name} is for a machine that is not known here (ELF's number {machine})"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::architecture;
    use crate::image::Architecture;

    #[test]
    fn a_dynamic_program_is_refused() {
        let own = std::env::current_exe().unwrap();
        let error = architecture(&own).unwrap_err().to_string();
        assert!(error.contains("linked dynamically"), "{error}");
        let text = own.with_extension("text");
        fs::write(&text, "#!/bin/sh\n").unwrap();
        let error = architecture(&text).unwrap_err().to_string();
        assert!(error.contains("is no program"), "{error}");
    }

    #[test]
    fn the_machine_of_a_static_program_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        for (machine, expected) in [(62, Architecture::Amd64), (183, Architecture::Arm64)] {
            // An ELF header without segments: 64 bits, little-endian.
            let mut header = [0_u8; 64];
            header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
            (header[16], header[18], header[20], header[52]) = (2, machine, 1, 64);
            fs::write(&path, header).unwrap();
            assert_eq!(architecture(&path).unwrap(), expected);
        }
    }
}
