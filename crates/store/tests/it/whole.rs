//! Files that are written as a whole, outside a home.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kith_store::{HomeError, refuse_unwritable, write_atomic};

/// What is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_and_replaced_with_its_mode_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    for (bytes, mode) in [(b"one", 0o600), (b"two", 0o644)] {
        refuse_unwritable(&path).unwrap();
        write_atomic(&path, bytes, mode).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(names(folder.path()), ["list"]);
}

#[test]
fn a_name_alone_is_in_the_current_folder() {
    let name = format!("kith-store-test-{}", std::process::id());
    refuse_unwritable(Path::new(&name)).unwrap();
    write_atomic(Path::new(&name), b"here", 0o600).unwrap();
    assert_eq!(fs::read(std::env::current_dir().unwrap().join(&name)).unwrap(), b"here");
    fs::remove_file(&name).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    symlink(path("folder"), path("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
    fs::write(path("file"), "before").unwrap();
    let before = names(folder.path());
    for name in ["folder", "folder/", "link", "pipe", "list/", "folder/.."] {
        let refused = refuse_unwritable(&path(name));
        assert!(matches!(refused, Err(HomeError::NotAFile { .. })), "{name}: {refused:?}");
    }
    let refused = refuse_unwritable(&path("none/list"));
    assert!(
        matches!(&refused, Err(HomeError::NotFound { path: none }) if *none == path("none")),
        "{refused:?}"
    );
    let refused = refuse_unwritable(&path("file/list"));
    assert!(
        matches!(&refused, Err(HomeError::NotAFolder { path: no }) if *no == path("file")),
        "{refused:?}"
    );
    refuse_unwritable(&path("file")).unwrap();
    assert!(write_atomic(&path("folder"), b"list", 0o600).is_err());
    assert_eq!(names(folder.path()), before);
    assert_eq!(fs::read(path("file")).unwrap(), b"before");
    assert!(names(&path("folder")).is_empty());
}
