use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use proptest::prelude::*;

use super::write::in_tar;
use super::*;
use crate::oci::Digest;

type Read = Vec<(Found, Vec<u8>)>;

fn read(bytes: &[u8]) -> Result<Read, Fault> {
    let mut members = Members::of(bytes)?;
    let mut found = Vec::new();
    while let Some(entry) = members.next_entry()? {
        let mut content = Vec::new();
        let mut buffer = [0; 100];
        loop {
            let count = members.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            content.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(content.len() as u64, entry.len);
        found.push((entry.found, content));
    }
    Ok(found)
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let len = content.len() as u64;
        tar.extend(header(name, len));
        tar.extend_from_slice(content);
        tar.resize(tar.len() + padding(len), 0);
    }
    tar.extend(END);
    tar
}

/// A tar of one member with this type, name and link, as another tool would write it.
pub(super) fn odd(kind: tar::EntryType, name: &str, link: &str) -> Vec<u8> {
    let mut head = tar::Header::new_ustar();
    head.set_entry_type(kind);
    head.set_size(0);
    let put = |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
    put(&mut head.as_old_mut().name, name);
    put(&mut head.as_old_mut().linkname, link);
    head.set_cksum();
    let mut tar = head.as_bytes().to_vec();
    tar.extend(END);
    tar
}

fn blob_name(content: &[u8]) -> String {
    Member::Blob(Digest::sha256(content)).to_string()
}

proptest! {
    #[test]
    fn what_was_written_is_read_again_however_it_is_compressed(
        contents in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..2000), 0..8),
        sha512 in any::<bool>(),
    ) {
        let digest = |content: &[u8]| {
            let algorithm = if sha512 { crate::oci::Algorithm::Sha512 } else { crate::oci::Algorithm::Sha256 };
            Digest::of(algorithm, content).unwrap()
        };
        let files: Vec<(String, Vec<u8>)> = contents
            .iter()
            .map(|content| (Member::Blob(digest(content)).to_string(), content.clone()))
            .collect();
        let borrowed: Vec<(&str, &[u8])> =
            files.iter().map(|(name, content)| (&**name, &**content)).collect();
        let tar = tar_of(&borrowed);
        let len: u64 = borrowed.iter().map(|(name, content)| in_tar(name, content.len() as u64)).sum();
        prop_assert_eq!(tar.len() as u64, len + END.len() as u64);
        let expected: Vec<_> = contents
            .iter()
            .map(|content| (Found::File(Member::Blob(digest(content))), content.clone()))
            .collect();
        prop_assert_eq!(&read(&tar).unwrap(), &expected);
        prop_assert_eq!(&read(&gzip(&tar)).unwrap(), &expected);
        prop_assert_eq!(&read(&zstd::encode_all(&tar[..], 3).unwrap()).unwrap(), &expected);
        // And by what others have written.
        let entries = tar::Archive::new(&tar[..]).entries().unwrap().count();
        prop_assert_eq!(entries, contents.len());
    }

    #[test]
    fn a_tar_that_was_cut_anywhere_is_refused(cut in 0_usize..4000) {
        let tar = tar_of(&[("index.json", &[7; 1500]), (&blob_name(b"x"), b"x")]);
        // One block of zeros is end enough.
        let cut = cut % (tar.len() - 512);
        prop_assert!(read(&tar[..cut]).is_err());
        let packed = zstd::encode_all(&tar[..], 3).unwrap();
        let cut = cut % packed.len();
        prop_assert!(read(&packed[..cut]).is_err());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_flipped_bit_is_found_or_changes_content_alone(at in 0_usize..4096, bit in 0_u8..8) {
        let tar = tar_of(&[("index.json", &[7; 600]), (&blob_name(b"x"), b"x")]);
        let sound = read(&tar).unwrap();
        let mut flipped = tar;
        let at = at % flipped.len();
        flipped[at] ^= 1 << bit;
        if let Ok(found) = read(&flipped) {
            let names = |read: &Read| read.iter().map(|(found, _)| found.clone()).collect::<Vec<_>>();
            prop_assert_eq!(names(&found), names(&sound));
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn long_names_and_sizes_are_written_as_others_read_them() {
    let digest = Digest::of(crate::oci::Algorithm::Sha512, b"x").unwrap();
    let name = Member::Blob(digest).to_string();
    let huge = 9 << 30;
    let mut tar = header(&name, huge);
    tar.truncate(tar.len());
    let mut archive = tar::Archive::new(Cursor::new(tar).chain(std::io::repeat(0).take(huge)));
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), huge);
    assert_eq!(entry.path_bytes(), name.as_bytes());
}

#[test]
fn whatever_an_image_does_not_need_is_refused_or_passed_over() {
    use tar::EntryType;
    for (kind, name, link) in [
        (EntryType::Symlink, "blobs", "/etc"),
        (EntryType::Symlink, "blobs/sha256/x", "y"),
        (EntryType::Symlink, "a/layer.tar", "../../b/layer.tar"),
        (EntryType::Link, "a/layer.tar", "/etc/shadow.tar"),
        (EntryType::Link, "index.json", "a.json"),
        (EntryType::Char, "index.json", ""),
        (EntryType::Block, "x", ""),
        (EntryType::Fifo, "x", ""),
        (EntryType::Regular, "../index.json", ""),
        (EntryType::Regular, "/index.json", ""),
        (EntryType::Directory, "../x", ""),
        (EntryType::GNUSparse, "index.json", ""),
    ] {
        let fault = read(&odd(kind, name, link)).unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::Path(_) | Fault::Link { .. } | Fault::Kind { .. }
            ),
            "{name}: {fault}"
        );
    }
    assert!(
        read(&odd(EntryType::Regular, "VERSION", ""))
            .unwrap()
            .is_empty()
    );
    let link = odd(EntryType::Symlink, "a/layer.tar", "../b/layer.tar");
    let alias = Found::Alias {
        name: "a/layer.tar".to_owned(),
        target: "b/layer.tar".to_owned(),
    };
    assert_eq!(read(&link).unwrap(), [(alias, Vec::new())]);
}

#[test]
fn a_file_that_is_there_twice_is_refused() {
    let tar = tar_of(&[("index.json", b"{}"), ("./index.json", b"[]")]);
    assert!(matches!(read(&tar), Err(Fault::Twice(_))));
}

#[test]
fn sizes_that_lie_are_refused_before_anything_is_held_for_them() {
    // Longer than it is: the next head is in the middle of nothing.
    let mut tar = header("index.json", 1 << 40);
    tar.extend(END);
    assert!(matches!(read(&tar), Err(Fault::Cut)));
    let mut members = Members::of(&tar[..]).unwrap();
    let entry = members.next_entry().unwrap().unwrap();
    let document = members.document(&Member::Index, entry.len);
    assert!(matches!(document, Err(Fault::TooLarge { .. })));
    // Shorter than it is.
    let mut tar = tar_of(&[("index.json", &[7; 2000])]);
    tar.splice(..512, header("index.json", 10));
    assert!(matches!(read(&tar), Err(Fault::NotTar(_))));
    // A long name that does not end.
    let mut head = tar::Header::new_gnu();
    head.set_entry_type(tar::EntryType::GNULongName);
    head.set_size(1 << 40);
    head.set_cksum();
    assert!(matches!(read(head.as_bytes()), Err(Fault::NotTar(_))));
}

/// An empty file of this name, as GNU tar writes a long one or, with `is_pax`, as POSIX says.
fn long_name(name: &str, is_pax: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut head = tar::Header::new_gnu();
    head.set_size(0);
    if is_pax {
        let path = [("path", name.as_bytes())];
        builder.append_pax_extensions(path).unwrap();
        head.set_path("short").unwrap();
        head.set_cksum();
        builder.append(&head, &[][..]).unwrap();
    } else {
        builder.append_data(&mut head, name, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_name_that_no_file_could_have_is_refused() {
    for is_pax in [false, true] {
        let name = |len: usize| "x".repeat(len - 4) + ".tar";
        let found = read(&long_name(&name(4096), is_pax)).unwrap();
        assert_eq!(found[0].0, Found::File(Member::Legacy(name(4096))));
        let fault = read(&long_name(&name(4097), is_pax)).unwrap_err();
        assert!(matches!(fault, Fault::NotTar(_)), "{fault}");
    }
}

#[test]
fn a_bomb_of_what_belongs_to_no_image_is_not_read_to_its_end() {
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.write_all(&header("zeros.bin", 5 << 30)).unwrap();
    let packed = packed.finish().unwrap();
    assert!(matches!(read(&packed), Err(Fault::TooMuch(_))));
}

#[test]
fn other_compressions_are_named_and_nothing_is_not_an_archive() {
    assert!(matches!(
        read(b"\xfd7zXZ\0......"),
        Err(Fault::Compression("xz"))
    ));
    assert!(matches!(
        read(b"BZh91AY&SY"),
        Err(Fault::Compression("bzip2"))
    ));
    assert!(matches!(read(b""), Err(Fault::Empty)));
    assert!(matches!(read(&[b'x'; 2000]), Err(Fault::NotTar(_))));
}

/// An image layout of one image, blobs before what lists them as skopeo writes it.
fn foreign(dir: &std::path::Path) -> Vec<Digest> {
    let config = b"{}".to_vec();
    let layer = b"a layer".to_vec();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":2}},"layers":[{{"digest":"{}","size":7}}]}}"#,
        Digest::sha256(&config),
        Digest::sha256(&layer)
    )
    .into_bytes();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{}}}]}}"#,
        Digest::sha256(&manifest),
        manifest.len()
    );
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for content in [&config, &layer, &manifest] {
        std::fs::write(blobs.join(Digest::sha256(content).encoded()), content).unwrap();
    }
    std::fs::write(dir.join("index.json"), index).unwrap();
    std::fs::write(dir.join("oci-layout"), OCI_LAYOUT_JSON).unwrap();
    [&manifest, &config, &layer]
        .map(|content| Digest::sha256(content))
        .into()
}

#[test]
fn a_directory_and_a_tar_of_it_are_told_alike_with_what_lists_images_first() {
    let dir = tempfile::tempdir().unwrap();
    let parts = foreign(dir.path());
    std::fs::write(dir.path().join("unrelated"), "x").unwrap();
    let tell = |path: &std::path::Path| {
        let telling = Shelf::open(path).unwrap().unwrap().telling().unwrap();
        let mut tar = Vec::new();
        telling.write(&mut tar).unwrap();
        assert_eq!(tar.len() as u64, telling.len());
        tar
    };
    let told = tell(dir.path());
    let found: Vec<_> = read(&told)
        .unwrap()
        .into_iter()
        .map(|(found, _)| found)
        .collect();
    let first = [
        Member::Layout,
        Member::Index,
        Member::Blob(parts[0].clone()),
    ];
    assert_eq!(found[..3], first.map(Found::File));
    assert_eq!(found.len(), 5);

    let tar = tempfile::NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir.path()).unwrap();
    std::fs::write(tar.path(), builder.into_inner().unwrap()).unwrap();
    assert_eq!(tell(tar.path()), told);

    let packed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(packed.path(), zstd::encode_all(&told[..], 3).unwrap()).unwrap();
    assert!(Shelf::open(packed.path()).unwrap().is_none());
    let lists = [dir.path(), tar.path(), packed.path()].map(|path| since(path).unwrap());
    assert_eq!(lists[0].blobs, parts.into_iter().collect());
    assert!(lists[0] == lists[1] && lists[1] == lists[2]);
}

#[test]
fn links_in_a_directory_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    foreign(dir.path());
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::remove_file(dir.path().join("index.json")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("index.json")).unwrap();
    assert!(matches!(Shelf::open(dir.path()), Err(Fault::Kind { .. })));
}

#[test]
fn links_between_layers_of_docker_save_are_told_as_the_layers_themselves() {
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["1/layer.tar","2/layer.tar"]}]"#;
    let mut tar = tar_of(&[("1/layer.tar", b"one"), ("c.json", b"{}")]);
    tar.truncate(tar.len() - END.len());
    tar.extend(odd(
        tar::EntryType::Symlink,
        "2/layer.tar",
        "../1/layer.tar",
    ));
    tar.truncate(tar.len() - END.len());
    tar.extend(tar_of(&[("manifest.json", manifest)]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    let telling = Shelf::open(file.path())
        .unwrap()
        .unwrap()
        .telling()
        .unwrap();
    let mut told = Vec::new();
    telling.write(&mut told).unwrap();
    let found = read(&told).unwrap();
    let images = read_docker(&found[0].1).unwrap();
    assert_eq!(images[0].layers, ["1/layer.tar", "1/layer.tar"]);
    assert_eq!(found.len(), 3);
}

#[test]
fn a_chain_of_links_is_told_as_its_end_unless_it_is_too_long() {
    let last = MOST_HOPS + 1;
    let manifest = format!(
        r#"[{{"Config":"c.json","RepoTags":["a:1"],"Layers":["{MOST_HOPS}.tar","{last}.tar"]}}]"#
    );
    let mut tar = Vec::new();
    for hop in 1..=last {
        let link = odd(
            tar::EntryType::Link,
            &format!("{hop}.tar"),
            &format!("{}.tar", hop - 1),
        );
        tar.extend_from_slice(&link[..512]);
    }
    tar.extend(tar_of(&[
        ("0.tar", b"one"),
        ("c.json", b"{}"),
        ("manifest.json", manifest.as_bytes()),
    ]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    let shelf = Shelf::open(file.path()).unwrap().unwrap();
    let mut told = Vec::new();
    shelf.telling().unwrap().write(&mut told).unwrap();
    let images = read_docker(&read(&told).unwrap()[0].1).unwrap();
    assert_eq!(images[0].layers, ["0.tar", "1.tar"]);
}

#[test]
fn what_the_index_of_a_directory_does_not_lead_to_is_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = foreign(dir.path());
    let left = Digest::sha256(b"of an earlier export");
    let blobs = dir.path().join("blobs/sha256");
    std::fs::write(blobs.join(left.encoded()), "of an earlier export").unwrap();
    let layer = parts.pop().unwrap();
    std::fs::remove_file(blobs.join(layer.encoded())).unwrap();
    let list = since(dir.path()).unwrap();
    assert_eq!(list.blobs, parts.into_iter().collect());
}

#[test]
fn a_layout_is_the_same_whatever_the_order_of_what_is_in_it() {
    let of = |contents: &[&[u8]]| -> BTreeMap<Digest, u64> {
        let with_len = |content: &&[u8]| (Digest::sha256(content), content.len() as u64);
        contents.iter().map(with_len).collect()
    };
    let index = Index::default();
    let layout = |manifests: &[&[u8]], others: &[&[u8]]| {
        Layout::new(&index, &[], &of(manifests), &of(others)).unwrap()
    };
    let one = layout(&[b"m", b"n"], &[b"a", b"bb", b"m"]);
    assert_eq!(one, layout(&[b"n", b"m"], &[b"bb", b"a"]));
    let first: Vec<_> = one.blobs[..2]
        .iter()
        .map(|(digest, _)| digest.clone())
        .collect();
    assert!(first.contains(&Digest::sha256(b"m")) && first.contains(&Digest::sha256(b"n")));
    assert_eq!(one.blobs.len(), 4);
}
