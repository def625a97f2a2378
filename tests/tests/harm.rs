//! Corruption of a store: its content is never used unchecked, and the next run, or the one after
//! it, has the same results as with an intact store.

use std::fs;
use std::path::PathBuf;

use crate::cache::{PIPELINE, rows, sandbox};
use crate::sandbox::{Sandbox, components};

/// Changes bytes of the files below a folder of the store, but not their sizes.
fn corrupt(sandbox: &Sandbox, folder: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut folders = vec![sandbox.path("store").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let mut bytes = std::fs::read(entry.path()).unwrap();
            change(&mut bytes);
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
}

/// The files below a folder of the store, in order.
fn files(sandbox: &Sandbox, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![sandbox.path("store").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

/// Removes the copies of records, so that the records themselves are read.
fn without_copies(sandbox: &Sandbox) {
    for folder in ["index", "traces"] {
        let _ = fs::remove_dir_all(sandbox.path("store").join(folder));
    }
}

#[test]
fn a_corrupt_store_is_recomputed_and_never_used_unchecked() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    for folder in ["actions", "packs", "tables", "sources", "plans", "manifests", "gathered", "memo"] {
        let mut changed = 0;
        let mut folders = vec![sandbox.path("store").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                // Truncate one, remove the next.
                let bytes = std::fs::read(entry.path()).unwrap();
                if changed % 2 == 0 {
                    std::fs::write(entry.path(), &bytes[..bytes.len() / 2]).unwrap();
                } else {
                    std::fs::remove_file(entry.path()).unwrap();
                }
                changed += 1;
            }
        }
        let run = sandbox.run(&[]);
        assert_eq!(run.last["outputs"], first.last["outputs"], "after corruption of {folder}");
        assert_eq!(sandbox.run(&[]).ran(), 0, "after {folder} was repaired");
    }
}

/// Corruption that leaves the size unchanged is detected when the bytes are read: before any result
/// derived from them is stored.
#[test]
fn changed_bytes_in_the_store_are_never_used() {
    let exported = |sandbox: &Sandbox| sandbox.read("out.csv");
    let pipeline = |by: u32| {
        format!(
            "[sources.s]\npath = \"in.csv\"\n[steps.d]\nuses = \"std:derive\"\ninput = \"s\"\n\
             params = {{ columns = {{ y = \"x * 2\" }} }}\n[steps.e]\nuses = \"std:derive\"\ninput = \"d\"\n\
             params = {{ columns = {{ z = \"x + y + {by}\" }} }}\n[exports]\n\"out.csv\" = \"e\"\n"
        )
    };
    let sandbox = Sandbox::with(&pipeline(1));
    sandbox.write("in.csv", "x\n1\n2\n3\n");
    sandbox.run(&[]);
    corrupt(&sandbox, "packs", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= u8::from(*byte == 2) * 5));
    let before = exported(&sandbox);
    sandbox.write("pipeline.toml", pipeline(10));
    let mut runs = 0;
    loop {
        let run = sandbox.host(&["run"]);
        if run.code == 0 {
            break;
        }
        assert!(run.code == 1 && run.stderr.contains("was corrupt and has been removed; run again"), "{}", run.stderr);
        assert_eq!(exported(&sandbox), before);
        runs += 1;
        assert!(runs < 2, "{}", run.stderr);
    }
    assert!(runs > 0);
    assert_eq!(exported(&sandbox), "x,y,z\n1,2,13\n2,4,16\n3,6,19\n");
}

/// Whatever has the path of a record is replaced.
#[test]
fn a_folder_at_the_path_of_a_record_is_replaced() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    std::fs::remove_dir_all(sandbox.path("store/index")).unwrap();
    for shard in std::fs::read_dir(sandbox.path("store/actions")).unwrap().flatten() {
        for record in std::fs::read_dir(shard.path()).unwrap().flatten() {
            std::fs::remove_file(record.path()).unwrap();
            std::fs::create_dir_all(record.path().join("inner")).unwrap();
        }
    }
    let run = sandbox.run(&[]);
    assert_eq!(run.last["outputs"], first.last["outputs"]);
    assert_eq!(sandbox.run(&[]).ran(), 0);
}

/// Without its LAYOUT file a store is recognised by its folders; another program's folder is never
/// written to.
#[test]
fn a_store_without_its_layout_file_is_recognised() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    std::fs::remove_file(sandbox.path("store/LAYOUT")).unwrap();
    assert_eq!(sandbox.run(&[]).ran(), 0);
    std::fs::remove_file(sandbox.path("store/LAYOUT")).unwrap();
    sandbox.write("store/mine.txt", "mine");
    assert_eq!(sandbox.host(&["run"]).code, 2);
    sandbox.write("other/tables/mine.txt", "mine");
    assert_eq!(sandbox.host(&["run", "--store", "other"]).code, 2);
    assert!(!sandbox.path("other/LAYOUT").exists());
}

/// Rows that are taken from corrupt bytes are not stored under the digest of the correct ones.
#[test]
fn rows_taken_from_corrupt_bytes_are_not_stored() {
    let pipeline = "[sources.s]\npath = \"in.csv\"\n[sources.t]\npath = \"names.csv\"\n[steps.j]\nuses = \"std:join\"\n\
                    inputs = { input = \"s\", table = \"t\" }\nparams = { on = [\"k\"], columns = [\"v\"] }\n\
                    [steps.d]\nuses = \"std:derive\"\ninput = \"t\"\nparams = { columns = { w = \"v * 2\" } }\n";
    let sandbox = Sandbox::with(pipeline);
    sandbox.write("in.csv", "k\n2\n1\n2\n").write("names.csv", "k,v\n1,77.5\n2,99.5\n");
    sandbox.run(&[]);
    let (good, bad) = (77.5f64.to_le_bytes(), 78.5f64.to_le_bytes());
    corrupt(&sandbox, "packs", |bytes| {
        if let Some(at) = bytes.windows(8).position(|value| value == good) {
            bytes[at..at + 8].copy_from_slice(&bad);
        }
    });
    sandbox.write("pipeline.toml", format!("{pipeline}[exports]\n\"out.csv\" = \"j\"\n"));
    assert_eq!(sandbox.host(&["run"]).code, 1);
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out.csv"), "k,v\n2,99.5\n1,77.5\n2,99.5\n");
}

/// A selection is read by the host itself: a corrupt one is recomputed, and selects the same.
#[test]
fn a_corrupt_selection_is_recomputed() {
    let sandbox = Sandbox::with(
        "[sources.s]\npath = \"in.csv\"\n[steps.d]\nuses = \"std:filter\"\ninput = \"s\"\nmatrix = { least = [1, 2] }\n\
         params = { where = \"x >= ${matrix.least}\" }\n[steps.b]\nuses = \"std:best\"\n\
         inputs = { candidates = \"d.metrics[*]\" }\nparams = { by = \"rows_out\" }\n[exports]\n\"out.csv\" = \"d[b]\"\n",
    );
    sandbox.write("in.csv", "x\n1\n2\n");
    let first = sandbox.run(&[]);
    let changed = std::cell::Cell::new(0);
    corrupt(&sandbox, "blobs", |bytes| {
        let choice = b"\"least\":1";
        if let Some(at) = bytes.windows(choice.len()).position(|text| text == choice) {
            bytes[at + choice.len() - 1] = b'2';
            changed.set(changed.get() + 1);
        }
    });
    assert_eq!(changed.get(), 1);
    std::fs::remove_file(sandbox.path("out.csv")).unwrap();
    let again = sandbox.run(&[]);
    assert_eq!(again.steps_that_ran(), ["b"]);
    assert_eq!(sandbox.read("out.csv"), "x\n1\n2\n");
    assert_eq!(again.last["outputs"], first.last["outputs"]);
}

/// The checksum of a record covers its name: one stored under the name of another counts as absent.
#[test]
fn swapped_records_count_as_absent() {
    let other = "[sources.more]\npath = \"more.csv\"\npart_rows = 3\n[steps.also]\nuses = \"std:filter\"\n\
                 input = \"more\"\nparams = { where = \"x > 0\" }\n[exports]\n\"out/derived.csv\" = \"derived\"\n\"out/also.csv\" = \"also\"\n";
    let pipeline = PIPELINE.split("[exports]").next().unwrap().to_owned() + other;
    for folder in ["sources", "gathered", "manifests", "actions", "compiled", "memo"] {
        let sandbox = sandbox();
        // The code of standard steps ships with the host, so those of users are compiled.
        let pipeline = if folder == "compiled" { with_own_steps(&sandbox, &pipeline) } else { pipeline.clone() };
        sandbox.write("pipeline.toml", &pipeline).write("more.csv", rows(3..9, "z"));
        // Rows of the first part are selected by a mask; the other parts keep all rows.
        sandbox.write("rows.csv", rows(-1..8, "a"));
        let first = sandbox.run(&[]);
        let (derived, also) = (sandbox.read("out/derived.csv"), sandbox.read("out/also.csv"));
        let all = files(&sandbox, folder);
        let contents: Vec<Vec<u8>> = all.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(all.len() > 1 || folder == "gathered", "{folder}: there is nothing to change");
        for (i, file) in all.iter().enumerate() {
            fs::write(file, &contents[(i + 1) % all.len()]).unwrap();
        }
        without_copies(&sandbox);
        fs::remove_dir_all(sandbox.path("out")).unwrap();
        let again = sandbox.run(&[]);
        assert_eq!(again.last["outputs"], first.last["outputs"], "{folder}");
        assert_eq!((sandbox.read("out/derived.csv"), sandbox.read("out/also.csv")), (derived, also), "{folder}");
        assert_eq!(sandbox.run(&["--set", "rate=0.25"]).steps_that_ran(), ["train"], "{folder}");
    }
}

/// Copies the standard steps of a pipeline into the sandbox, as other components with the same
/// code, and returns the pipeline with those in their place.
fn with_own_steps(sandbox: &Sandbox, pipeline: &str) -> String {
    let name_of = |rest: &str| rest.split('"').next().expect("a quote").to_owned();
    let names: Vec<String> = pipeline.split("std:").skip(1).map(name_of).collect();
    names.iter().fold(pipeline.to_owned(), |pipeline, name| {
        let file = components().join(format!("{name}.wasm"));
        let mut component = fs::read(file).expect("a standard step");
        // An empty custom section gives it another digest.
        component.extend(*b"\0\x05\x04note");
        sandbox.write(&format!("{name}.wasm"), component);
        pipeline.replace(&format!("\"std:{name}\""), &format!("\"path:{name}.wasm\""))
    })
}

/// Packs and blobs that are links to others count as corrupt, all at once.
#[test]
fn links_do_not_count_as_objects() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    for folder in ["packs", "blobs"] {
        let all = files(&sandbox, folder);
        for (i, file) in all.iter().enumerate().skip(1) {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink(&all[i - 1], file).unwrap();
        }
    }
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    let codes: Vec<i32> = (0..2).map(|_| sandbox.host(&["run"]).code).collect();
    assert_eq!(codes[1], 0, "{codes:?}");
    assert_eq!(sandbox.run(&[]).last["outputs"], first.last["outputs"]);
}

/// Flipped bytes anywhere in a pack are detected by every reader, without a panic.
#[test]
fn no_reader_panics_at_corrupt_packs() {
    for offset in [0, 9, 40, 200] {
        let sandbox = sandbox();
        let first = sandbox.run(&[]);
        corrupt(&sandbox, "packs", |bytes| {
            let length = bytes.len();
            bytes[offset] ^= 0x55;
            bytes[length - 316 + offset] ^= 0x55;
            bytes[length / 2] ^= 0x55;
        });
        fs::remove_dir_all(sandbox.path("out")).unwrap();
        let run = sandbox.host(&["run"]);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        let again = sandbox.run(&[]);
        assert_eq!(again.last["outputs"], first.last["outputs"]);
    }
}

/// Offsets of texts are not trusted either, and whichever reader finds the corruption first reports
/// it.
#[test]
fn corrupt_offsets_of_texts_are_detected() {
    let sandbox = Sandbox::new();
    sandbox.write("rows.csv", "t\na\nb\nc\nd\n");
    sandbox.write(
        "pipeline.toml",
        "[sources.rows]\npath = \"rows.csv\"\n[steps.kept]\nuses = \"std:select\"\ninput = \"rows\"\n",
    );
    let first = sandbox.run(&[]);
    let shown = sandbox.host(&["show", "kept"]).stdout;
    let offsets: Vec<u8> = (0..5i32).flat_map(i32::to_le_bytes).collect();
    for arguments in [&["show", "kept"][..], &["show", "kept", "--export", "k.csv"]] {
        let changed = std::cell::Cell::new(0);
        corrupt(&sandbox, "packs", |bytes| {
            if let Some(at) = bytes.windows(offsets.len()).position(|found| found == offsets) {
                bytes[at + 11] ^= 0x40;
                changed.set(changed.get() + 1);
            }
        });
        assert_eq!(changed.get(), 1);
        let broken = sandbox.host(arguments);
        assert_eq!(broken.code, 1);
        assert!(broken.stderr.contains("was corrupt") && broken.stderr.contains("run again"), "{}", broken.stderr);
        assert_eq!(sandbox.run(&[]).last["outputs"], first.last["outputs"]);
        assert_eq!(sandbox.host(&["show", "kept"]).stdout, shown);
    }
}

#[test]
fn a_table_that_cannot_be_shown_is_written_again() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    let shown = sandbox.host(&["show", "derived"]);
    corrupt(&sandbox, "tables", |bytes| bytes.iter_mut().skip(1).take(9).for_each(|byte| *byte ^= 0x33));
    let broken = sandbox.host(&["show", "derived"]);
    assert_eq!(broken.code, 2);
    assert!(broken.stderr.contains("run the pipeline again"), "{}", broken.stderr);
    assert_eq!(sandbox.run(&[]).ran(), 0);
    assert_eq!(sandbox.host(&["show", "derived"]).stdout, shown.stdout);
    // It need not be shown first.
    corrupt(&sandbox, "tables", |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    assert_eq!(sandbox.run(&[]).ran(), 0);
    assert_eq!(sandbox.host(&["show", "derived"]).stdout, shown.stdout);
    // The packs of a table may be lost or truncated, too.
    let losses: [&dyn Fn(&std::path::Path); 2] =
        [&|pack| fs::remove_file(pack).unwrap(), &|pack| fs::write(pack, b"ARROW1").unwrap()];
    for loss in losses {
        files(&sandbox, "packs").iter().for_each(|pack| loss(pack));
        for arguments in [&["show", "derived"][..], &["show", "derived", "--export", "d.csv"]] {
            let broken = sandbox.host(arguments);
            assert_eq!(broken.code, 1);
            assert!(broken.stderr.contains("run the pipeline again"), "{}", broken.stderr);
        }
        sandbox.run(&[]);
        assert_eq!(sandbox.host(&["show", "derived"]).stdout, shown.stdout);
    }
}

/// What a copy of a store easily loses, or what may replace its files.
#[test]
fn small_damage_is_repaired_by_the_next_run() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    let store = sandbox.path("store");
    let damages: [(&str, &dyn Fn()); 8] = [
        ("no folder for new files", &|| fs::remove_dir_all(store.join("tmp")).unwrap()),
        ("no folder for claims", &|| fs::remove_dir_all(store.join("claims")).unwrap()),
        ("claims that are a folder", &|| {
            fs::remove_file(store.join("claims/keys")).unwrap();
            fs::create_dir(store.join("claims/keys")).unwrap();
        }),
        ("claims that are a pipe", &|| {
            fs::remove_file(store.join("claims/keys")).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(store.join("claims/keys")).status().unwrap().success());
        }),
        ("an empty LAYOUT file", &|| fs::write(store.join("LAYOUT"), "").unwrap()),
        ("a LAYOUT file that is not text", &|| fs::write(store.join("LAYOUT"), [0xff, 0xfe]).unwrap()),
        ("a LAYOUT file that links to itself", &|| {
            fs::remove_file(store.join("LAYOUT")).unwrap();
            std::os::unix::fs::symlink(store.join("LAYOUT"), store.join("LAYOUT")).unwrap();
        }),
        ("an index that is a pipe without a writer", &|| {
            for file in files(&sandbox, "index") {
                fs::remove_file(&file).unwrap();
                assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
            }
        }),
    ];
    for (i, (what, damage)) in damages.iter().enumerate() {
        damage();
        let run = sandbox.run(&["--set", &format!("rate=0.{}", i + 11)]);
        assert_eq!(run.steps_that_ran(), ["train"], "{what}");
        assert_eq!(sandbox.run(&[]).last["outputs"], first.last["outputs"], "{what}");
    }
    // A store of another version is not touched.
    fs::write(store.join("LAYOUT"), "millrace-store 99").unwrap();
    assert_eq!(sandbox.host(&["run"]).code, 2);
}
