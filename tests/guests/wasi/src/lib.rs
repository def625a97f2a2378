//! A step that reads everything WASI offers, and reports it. `tests/wasi.rs` has the values that
//! are allowed.

#![cfg(target_arch = "wasm32")]

use millrace_sdk::prelude::*;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};

#[derive(Params)]
struct Look {
    /// An action that ends the step: `exit`, `socket`.
    #[param(default = String::new())]
    then: String,
}

impl Step for Look {
    fn ports() -> Ports {
        Ports::new().input_table("input", "any table").blob("report", "what was seen")
    }

    fn plan(&self, _: &mut Plan) -> Result<()> {
        Ok(())
    }
}

fn entries(folder: &Descriptor, path: &str, out: &mut Vec<Value>) {
    let Ok(stream) = folder.read_directory() else { return };
    while let Ok(Some(entry)) = stream.read_directory_entry() {
        let path = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
        let mut found = json!({ "path": path });
        if let Ok(stat) = folder.stat_at(PathFlags::empty(), &entry.name) {
            found["kind"] = format!("{:?}", stat.type_).into();
            found["size"] = stat.size.into();
            found["links"] = stat.link_count.into();
            found["times"] = (stat.data_access_timestamp.is_some()
                || stat.data_modification_timestamp.is_some()
                || stat.status_change_timestamp.is_some())
            .into();
        }
        if let Ok(hash) = folder.metadata_hash_at(PathFlags::empty(), &entry.name) {
            found["number"] = json!([hash.lower, hash.upper]);
        }
        let open = |flags| folder.open_at(PathFlags::SYMLINK_FOLLOW, &entry.name, flags, DescriptorFlags::READ);
        match open(OpenFlags::empty()).and_then(|file| file.read(1 << 16, 0)) {
            Ok((bytes, _)) => found["text"] = String::from_utf8_lossy(&bytes).into_owned().into(),
            Err(code) => found["read"] = format!("{code:?}").into(),
        }
        out.push(found);
        if let Ok(inner) = open(OpenFlags::DIRECTORY) {
            entries(&inner, &path, out);
        }
    }
}

impl Whole for Look {
    fn whole(&self, task: &Task) -> Result<()> {
        use wasip2::{cli, clocks, filesystem, random};
        let mut report = json!({
            "random": random::random::get_random_bytes(8),
            "insecure": random::insecure::get_insecure_random_bytes(8),
            "seed": format!("{:?}", random::insecure_seed::insecure_seed()),
            "environment": cli::environment::get_environment(),
            "arguments": cli::environment::get_arguments(),
            "monotonic": clocks::monotonic_clock::now(),
            "wall": clocks::wall_clock::now().seconds,
        });
        // A century.
        clocks::monotonic_clock::subscribe_duration(3_155_760_000_000_000_000).block();
        report["after"] = clocks::monotonic_clock::now().into();
        let input = cli::stdin::get_stdin().blocking_read(10);
        report["stdin"] = format!("{:?}", input.map(|bytes| bytes.len()).map_err(|_| "closed")).into();
        let (out, err) = (cli::stdout::get_stdout(), cli::stderr::get_stderr());
        let print = |bytes: &[u8]| out.blocking_write_and_flush(bytes).map_err(|_| Error::new("no output"));
        print(b"one\ntw")?;
        err.blocking_write_and_flush(b"an error\n").map_err(|_| Error::new("no output"))?;
        print(b"o\n\nno end")?;
        let mut folders = json!({});
        for (folder, name) in filesystem::preopens::get_directories() {
            let mut found = Vec::new();
            entries(&folder, "", &mut found);
            let write = folder.open_at(PathFlags::empty(), "new", OpenFlags::CREATE, DescriptorFlags::WRITE);
            let out_of_it =
                folder.open_at(PathFlags::SYMLINK_FOLLOW, "../secret", OpenFlags::empty(), DescriptorFlags::READ);
            folders[&name] = json!({
                "entries": found,
                "write": format!("{:?}", write.map(|_| ())),
                "outside": format!("{:?}", out_of_it.map(|_| ())),
            });
        }
        report["folders"] = folders;
        match self.then.as_str() {
            "exit" => cli::exit::exit(Ok(())),
            "socket" => {
                let family = wasip2::sockets::network::IpAddressFamily::Ipv4;
                report["socket"] = wasip2::sockets::tcp_create_socket::create_tcp_socket(family).is_ok().into();
            }
            // More lines than the log stores, and one without an end.
            "print" => {
                for _ in 0..100_000 {
                    print(b"again\n")?;
                }
                for _ in 0..100_000 {
                    print(&[b'x'; 4096])?;
                }
            }
            // Resources of the host that are never released.
            "hoard" => {
                let all: Vec<_> = (0..10_000_000u64).map(clocks::monotonic_clock::subscribe_duration).collect();
                report["hoarded"] = all.len().into();
            }
            _ => {}
        }
        task.emit_blob("report", report.to_string().as_bytes())
    }
}

millrace_sdk::register!(Look: whole);
