//! The way from one format to the next, with steps of their own: there is but one format so far.

use std::fs;

use super::*;
use crate::store::Disk;
use crate::store::testing::Sick;

/// In format 7 there was a file `one`; since 8 it is `two`, and since 9 `two` begins with a `9`.
const STEPS: &[Step] = &[
    Step {
        name: "one becomes two",
        run: |files, root| {
            match files.rename(&root.join("one"), &root.join("two")) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
            files.sync_dir(root)
        },
    },
    Step {
        name: "two begins with a 9",
        run: |files, root| {
            let path = root.join("two");
            let file = files.reopen(&path)?;
            files.write_at(&file, 0, b"9")?;
            files.sync_data(&file)
        },
    },
];

/// Those who know all formats, and those who know but the first.
const ALL: Formats = Formats::new(7, STEPS);
const OLD: Formats = Formats::new(7, &[]);

/// Opens and closes a data directory; the instance that it says it is.
fn open_with(files: &dyn Files, root: &Path, formats: Formats) -> Result<String, OpenError> {
    let layout = Layout::new(root.to_owned());
    let lock = try_lock(files, &layout)?.expect("nobody holds it");
    let opened = prepare(files, &layout, formats, lock, SystemTime::now(), None)?;
    Ok(opened.instance_id)
}

fn format_of(root: &Path) -> u64 {
    let text = fs::read(root.join("layby.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    value["format"].as_u64().unwrap()
}

/// A directory in format 7, and its instance.
fn old() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let instance = open_with(&Disk, dir.path(), OLD).unwrap();
    fs::write(dir.path().join("one"), "content").unwrap();
    assert_eq!(format_of(dir.path()), 7);
    (dir, instance)
}

fn assert_migrated(root: &Path) {
    assert_eq!(format_of(root), 9);
    assert_eq!(fs::read_to_string(root.join("two")).unwrap(), "9ontent");
    assert!(!root.join("one").is_file());
}

#[test]
fn an_older_directory_goes_through_every_step_and_stays_the_same_instance() {
    let (dir, instance) = old();
    assert_eq!(open_with(&Disk, dir.path(), ALL).unwrap(), instance);
    assert_migrated(dir.path());
    assert_eq!(open_with(&Disk, dir.path(), ALL).unwrap(), instance);
    assert_migrated(dir.path());
}

#[test]
fn a_migration_that_was_cut_short_anywhere_goes_on_at_the_next_start() {
    let mut cuts = 0_u64;
    loop {
        let (dir, instance) = old();
        let cut = open_with(&Sick::killed_after(cuts), dir.path(), ALL);
        let is_whole = cut.is_ok();
        assert_eq!(open_with(&Disk, dir.path(), ALL).unwrap(), instance);
        assert_migrated(dir.path());
        let left = fs::read_dir(dir.path().join("partial")).unwrap().count();
        assert_eq!(left, 0, "after {cuts} changes");
        if is_whole {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn a_step_that_fails_is_named_and_the_directory_stays_in_its_format() {
    let (dir, _) = old();
    fs::rename(dir.path().join("one"), dir.path().join("elsewhere")).unwrap();
    let error = open_with(&Disk, dir.path(), ALL).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("from format 8 to 9 (two begins with a 9)"),
        "{text}"
    );
    assert_eq!(format_of(dir.path()), 8);
}

#[test]
fn a_new_directory_begins_in_the_newest_format() {
    let dir = tempfile::tempdir().unwrap();
    open_with(&Disk, dir.path(), ALL).unwrap();
    assert_eq!(format_of(dir.path()), 9);
}

#[test]
fn a_directory_that_lost_its_identity_is_taken_for_the_oldest() {
    let (dir, instance) = old();
    fs::remove_file(dir.path().join("layby.json")).unwrap();
    let anew = open_with(&Disk, dir.path(), ALL).unwrap();
    assert_ne!(anew, instance);
    assert_migrated(dir.path());
    fs::remove_file(dir.path().join("layby.json")).unwrap();
    open_with(&Disk, dir.path(), ALL).unwrap();
    assert_migrated(dir.path());
}

#[test]
fn a_format_before_the_first_is_refused() {
    let (dir, _) = old();
    fs::write(
        dir.path().join("layby.json"),
        r#"{"format": 6, "instance": "a"}"#,
    )
    .unwrap();
    let text = open_with(&Disk, dir.path(), ALL).unwrap_err().to_string();
    assert!(text.contains("format 6"), "{text}");
    assert!(dir.path().join("one").is_file());
}
