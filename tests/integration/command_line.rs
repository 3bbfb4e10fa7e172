//! What the command line says of itself: help, completion, manual pages, and answers to what is no command.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use layby::cli::Cli;

fn layby(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layby"));
    command.env_remove("LAYBY_CONFIG").env_remove("COLUMNS");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("layby starts")
}

fn printed(arguments: &[&str]) -> String {
    let output = layby(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The names of all commands.
fn commands() -> Vec<String> {
    let commands = Cli::command();
    let names = commands.get_subcommands();
    names.map(|command| command.get_name().to_owned()).collect()
}

#[test]
fn every_command_and_argument_is_explained() {
    let mut command = Cli::command();
    command.build();
    assert!(command.get_about().is_some());
    for command in command.get_subcommands() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {argument}");
        }
    }
}

#[test]
fn help_fits_a_hundred_columns_and_shows_each_command() {
    let mut calls = vec![vec!["--help".to_owned()]];
    for name in commands() {
        calls.push(vec![name.clone(), "-h".to_owned()]);
        calls.push(vec![name, "--help".to_owned()]);
    }
    for call in calls {
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        let help = printed(&call);
        assert!(help.contains("Usage: layby"), "{call:?}: {help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{call:?}: {line}");
        }
    }
    let help = printed(&["--help"]);
    for name in commands() {
        assert!(help.contains(&format!("\n  {name} ")), "{name} in {help}");
    }
}

#[test]
fn what_is_no_command_is_answered_with_what_is_one() {
    for (call, hint) in [
        (&["sevre"][..], "'serve'"),
        (&["setup", "dokcer"], "'docker'"),
        (&["setup"], "<CLIENT>"),
        (&["serve", "--lisen", "x"], "'--listen'"),
        (&["rm"], "<IMAGE|PATTERN>"),
        (
            &["setup", "docker", "--mirror", "layby:5000"],
            "http://host:port",
        ),
        (&["completions", "tcsh"], "bash"),
        (&[], "Usage: layby <COMMAND>"),
    ] {
        let output = layby(call);
        assert_eq!(output.status.code(), Some(2), "{call:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(hint), "{call:?}: {said}");
        assert!(output.stdout.is_empty(), "{call:?}: {output:?}");
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let script = printed(&["completions", "bash"]);
    for (words, expected) in [
        ("layby se", "serve setup"),
        ("layby setup dock", "docker"),
        ("layby serve --off", "--offline"),
        ("layby completions ba", "bash"),
    ] {
        let count = words.split(' ').count();
        let (before, last) = words.rsplit_once(' ').unwrap();
        let (_, previous) = before.rsplit_once(' ').unwrap_or(("", before));
        let ask = format!(
            "{script}\ncomplete -p layby >/dev/null || exit 1\nCOMP_WORDS=({words})\nCOMP_CWORD={}\n_layby layby '{last}' '{previous}'\necho \"${{COMPREPLY[*]}}\"\n",
            count - 1
        );
        let mut bash = Command::new("bash");
        let bash = bash
            .args(["--norc", "--noprofile", "-s"])
            .stdin(Stdio::piped());
        let mut bash = bash
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin
            .take()
            .unwrap()
            .write_all(ask.as_bytes())
            .unwrap();
        let output = bash.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
    }
}

#[test]
fn other_shells_get_a_script_with_every_command() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for name in commands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page_that_groff_takes_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("man1");
    printed(&["man", inside.to_str().unwrap()]);
    let mut pages: Vec<String> = commands()
        .iter()
        .map(|name| format!("layby-{name}.1"))
        .collect();
    pages.push("layby.1".to_owned());
    let stdout = printed(&["man"]);
    assert_eq!(stdout, fs::read_to_string(inside.join("layby.1")).unwrap());
    let has_groff = Command::new("groff").arg("--version").output().is_ok();
    assert!(
        has_groff || std::env::var_os("LAYBY_REQUIRE_CLIENTS").is_none(),
        "this machine lacks groff"
    );
    for page in pages {
        let path = inside.join(&page);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
        if has_groff {
            let mut groff = Command::new("groff");
            let groff = groff.args(["-man", "-ww", "-z", "-Tutf8", "-K", "utf-8"]);
            let output = groff.arg(&path).output().unwrap();
            assert!(output.status.success(), "{page}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{page}");
        }
    }
}

/// `layby setup … --write` in a folder of its own.
fn set_up(folder: &Path, arguments: &str, stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layby"));
    command
        .args(["setup", "--write", "--mirror", "http://127.0.0.1:5000"])
        .args(arguments.split(' '));
    let command = command.current_dir(folder).stdin(Stdio::null());
    let command = command.stdout(stdout).stderr(Stdio::piped());
    let child = command.spawn().expect("layby starts");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_file_without_a_folder_is_written_where_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = set_up(folder.path(), "docker --file new.json", Stdio::piped());
    assert!(output.status.success(), "{output:?}");
    assert!(folder.path().join("new.json").is_file());
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn all_files_are_written_whether_or_not_anybody_listens() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let closed = || std::io::pipe().unwrap().1;
    for (stdout, code) in [(Stdio::from(closed()), 0), (Stdio::from(full()), 1)] {
        let folder = tempfile::tempdir().unwrap();
        let output = set_up(folder.path(), "containerd --root .", stdout);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        for name in ["config.toml", "certs.d/_default/hosts.toml"] {
            let path = folder.path().join("etc/containerd").join(name);
            assert!(path.is_file(), "{name}: {output:?}");
        }
    }
}

#[test]
fn the_superuser_does_not_write_into_a_directory_of_another_user_at_rest() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only the superuser has somebody else's directories");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(7), Some(8)).unwrap();
    let data_dir = folder.path().to_str().unwrap();
    for call in [&["ls"][..], &["warm", "r.test/a:1"], &["import", "x.tar"]] {
        let output = layby(&[call, &["--data-dir", data_dir]].concat());
        assert_eq!(output.status.code(), Some(3), "{call:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("setpriv --reuid=7 --regid=8 --clear-groups layby"),
            "{call:?}: {said}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{call:?}");
    }
    // A server that runs is asked, whomever it belongs to.
    let lock = fs::File::create(folder.path().join("layby.lock")).unwrap();
    lock.lock().unwrap();
    let output = layby(&["ls", "--data-dir", data_dir]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("admin.token cannot be read"), "{said}");
}
