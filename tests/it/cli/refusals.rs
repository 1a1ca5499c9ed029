//! What does not start: each time one line on stderr, starting with `odometer: `, and the exit code
//! that says whose fault it is.
//!
//! Invariant: 64 is a setting, 1 is the world.
//! Must never: repeat a password, or leave something behind in a folder that is not ours.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::{Place, refused};
use crate::support::server::TestServer;

#[test]
fn bad_settings_are_one_line_and_64() {
    let place = Place::new();
    let file = |text: &str| place.file("odometer.toml", text).display().to_string();
    let serve = TestServer::builder;
    for (flag, value, words) in [
        ("--listen", "localhost", &["listen", "localhost", "flag --listen"][..]),
        ("--checkpoint-interval", "30", &["checkpoint-interval", "unit"]),
        ("--checkpoint-interval", "soon", &["checkpoint-interval", "soon"]),
        ("--drain-timeout", "61s", &["drain-timeout", "61s"]),
        ("--tenant-rate-limit", "many", &["tenant-rate-limit", "many"]),
        ("--client-rate-limit", "0/s", &["client-rate-limit", "0/s"]),
        ("--journal-segment-size", "1", &["journal-segment-size"]),
        ("--workers", "0", &["workers"]),
        ("--log-format", "yaml", &["log-format", "yaml"]),
        ("--log-level", "inof", &["log-level", "inof"]),
        ("--trusted-proxies", "10.0.0.0/33", &["trusted-proxies"]),
        ("--tls-cert", "cert.pem", &["tls-cert", "tls-key"]),
        ("--store", "redis", &["store"]),
        ("--config", "none.toml", &["none.toml"]),
    ] {
        refused(serve().flag(flag, value)).complained(64, words);
    }
    for (text, words) in [
        ("listne = \"127.0.0.1:1\"", &["listne", "line 1", "listen"][..]),
        ("\n\nlog_keep = \"x\"", &["log-keep", "x", "odometer.toml"]),
        ("workers = [1]", &["workers", "line 1", "array"]),
        ("workers = 1.5", &["workers", "float"]),
        ("[limits]\nworkers = 1", &["limits"]),
        ("listen = ", &["line 1"]),
        ("log_keep = 1\nlog_keep = 2", &["line 2"]),
    ] {
        refused(serve().flag("--config", file(text))).complained(64, words);
    }
    Place::new().run(&["serve", "--data-dir", ""]).complained(64, &["data-dir"]);
    refused(serve().env("ODOMETER_WORKERS", "x"))
        .complained(64, &["workers", "env ODOMETER_WORKERS"]);
    refused(serve().env("ODOMETER_CONFIG", "nowhere.toml")).complained(64, &["nowhere.toml"]);
    for url in ["postgres://u:secret@h/db", "postgresql://u:secret@h/db", "mysql://u:secret@h"] {
        for builder in [
            serve().flag("--store", url),
            serve().env("ODOMETER_STORE", url),
            serve().flag("--config", file(&format!("store = \"{url}\""))),
        ] {
            let ended = refused(builder);
            ended.complained(64, &["store"]);
            assert!(!format!("{ended:?}").contains("secret"), "the password came back: {ended:?}");
        }
    }
}

#[test]
fn bad_command_lines_are_one_line_and_64() {
    let place = Place::new();
    for words in [
        &["serve", "--bogus"][..],
        &["serve", "--listen"],
        &["serve", "stray"],
        &["serve", "--drain-timeout", "-1s"],
        &["serve", "--workers", "1", "--workers", "2"],
        &["bogus"],
        &["completions", "tcsh"],
        &["config"],
        &["config", "print", "--bogus=1"],
        &["verify", "--bogus"],
    ] {
        place.run(words).complained(64, &[]);
    }
    place.run(&["serve", "--bogus"]).complained(64, &["--bogus"]);
}

#[test]
fn a_folder_that_can_not_be_used_is_one_line_and_1() {
    let place = Place::new();
    let file = place.file("file", "x");
    let at = |path: &Path| refused(TestServer::builder().data_dir(path));
    at(&file).complained(1, &["file", "not a directory"]);
    at(&file.join("below")).complained(1, &["file/below"]);
    // sysfs takes no folders, not even from root.
    at(Path::new("/sys/odometer")).complained(1, &["/sys/odometer"]);
    for (name, text) in [
        ("newer", "odometer data format 99 store 00000000000000000000000000000000\n"),
        ("older", "odometer data format 0 store 00000000000000000000000000000000\n"),
        ("strange", "another program's format\n"),
        ("empty", ""),
    ] {
        fs::create_dir(place.path(name)).unwrap();
        place.file(&format!("{name}/FORMAT"), text);
        at(&place.path(name)).complained(1, &[name, "format"]);
        place.verify(&place.path(name)).complained(1, &[name, "format"]);
        assert_eq!(fs::read_to_string(place.path(name).join("FORMAT")).unwrap(), text);
    }
}

/// A folder that is not ours is left as it was found.
#[test]
fn a_folder_of_another_format_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path("theirs")).unwrap();
    place.file("theirs/FORMAT", "another program's format\n");
    assert_eq!(refused(TestServer::builder().data_dir(place.path("theirs"))).code, Some(1));
    let mut names: Vec<_> = fs::read_dir(place.path("theirs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["FORMAT"], "something was made in a folder that is not ours");
}

/// What the system said is said once.
#[test]
fn a_cause_is_not_repeated() {
    let ended = refused(TestServer::builder().data_dir("/sys/odometer"));
    assert_eq!(ended.stderr.matches("(os error").count(), 1, "{}", ended.stderr);
}

#[test]
fn a_place_that_is_taken_is_one_line_and_1() {
    let running = TestServer::builder().flag("--http-listen", "127.0.0.1:0").start();
    let ended = refused(TestServer::builder().data_dir(running.data_dir()));
    ended.complained(1, &["in use", &running.data_dir().display().to_string()]);
    Place::new().verify(running.data_dir()).complained(1, &["in use"]);
    let port = running.public().to_string();
    for flag in ["--listen", "--http-listen", "--ops-listen"] {
        refused(TestServer::builder().flag(flag, &port)).complained(1, &[flag, &port]);
    }
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().to_string();
    refused(TestServer::builder().flag("--listen", &port)).complained(1, &["--listen", &port]);
    let ended = refused(TestServer::builder().flag("--listen", "192.0.2.1:0"));
    ended.complained(1, &["--listen", "192.0.2.1:0"]);
    assert_eq!(running.ops_get("/readyz").0, 200, "the running one was disturbed");
    running.stop();
}

#[test]
fn logs_that_can_not_be_written_are_one_line_and_1() {
    let place = Place::new();
    let file = place.file("file", "x");
    refused(TestServer::builder().flag("--log-dir", &file)).complained(1, &["file"]);
    refused(TestServer::builder().flag("--log-dir", "/sys/odometer"))
        .complained(1, &["/sys/odometer"]);
}
