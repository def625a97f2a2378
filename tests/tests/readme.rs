//! The commands in the READMEs, exactly as written there.

use crate::sandbox::{Sandbox, host, repository};

/// Lines of the `sh` blocks of a file that call `host`.
fn commands(readme: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(readme)).unwrap_or_else(|error| panic!("{readme}: {error}"));
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && (line.starts_with("host ") || line.starts_with("target/release/host ")) {
            found.push(line.split('#').next().unwrap_or_default().trim().to_owned());
        }
    }
    found
}

/// A copy of the repository's examples, for commands that write.
fn copied() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut folders = vec![repository().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("out") && !path.ends_with("target") {
                    folders.push(path);
                }
                continue;
            }
            let name = path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
            // A crate of the workspace cannot be built outside of it.
            if name.starts_with("examples/hello/greet") {
                continue;
            }
            sandbox.write(&name, std::fs::read(&path).unwrap());
        }
    }
    let pipeline = sandbox.path("examples/hello/pipeline.toml");
    let greet = format!("path:{}", repository().join("examples/hello/greet").display());
    let text = std::fs::read_to_string(&pipeline).unwrap().replace("path:greet", &greet);
    std::fs::write(pipeline, text).unwrap();
    sandbox
}

#[test]
fn every_command_of_the_readmes_works() {
    for readme in ["README.md", "examples/churn/README.md", "examples/hello/README.md"] {
        let sandbox = copied();
        let commands = commands(readme);
        assert!(!commands.is_empty(), "{readme} has no command to run");
        for line in commands {
            let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
            let script = format!("{} {rest}", host().display());
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(&script).current_dir(sandbox.path("")).env("MILLRACE_STORE", sandbox.path("store"));
            let output = shell.output().unwrap();
            assert!(output.status.success(), "{readme}: {line}\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_step_from_source_is_built_once_and_then_only_stated() {
    let sandbox = copied();
    let run = sandbox.run(&["examples/hello/pipeline.toml"]);
    assert_eq!(run.ran(), 1);
    assert_eq!(
        sandbox.read("examples/hello/out/greetings.csv"),
        "name,born,greeting\nAda,1815,\"Hello, Ada!\"\nGrace,1906,\"Hello, Grace!\"\nKatherine,1918,\"Hello, Katherine!\"\n"
    );
    // Without a compiler in `PATH` nothing can be built.
    let mut command = sandbox.command(&["run", "--json", "examples/hello/pipeline.toml"]);
    let output = command.env("PATH", "/nowhere").env_remove("CARGO").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"cached\":1"));
    // A corrupt component in the store is built again.
    let mut corrupted = 0;
    for shard in std::fs::read_dir(sandbox.path("store/blobs")).unwrap() {
        for blob in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            std::fs::write(blob.unwrap().path(), "corrupt").unwrap();
            corrupted += 1;
        }
    }
    assert_eq!(corrupted, 1);
    assert_eq!(sandbox.run(&["examples/hello/pipeline.toml"]).cached(), 1);
}
