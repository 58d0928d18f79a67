//! Replays every input that once was a finding, and the kept corpora.

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    for kind in ["corpus", "findings"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(kind)
            .join(target);
        let Ok(files) = std::fs::read_dir(folder) else {
            continue;
        };
        for file in files {
            let path = file.expect("a folder that can be listed").path();
            eprintln!("{}", path.display());
            run(&std::fs::read(path).expect("a file that can be read"));
        }
    }
}

#[test]
fn store() {
    replay("store", firn_fuzz::store::run);
}

#[test]
fn blkback() {
    replay("blkback", firn_fuzz::blkback::run);
}

#[test]
fn bootinfo() {
    replay("bootinfo", firn_fuzz::bootinfo::run);
}
