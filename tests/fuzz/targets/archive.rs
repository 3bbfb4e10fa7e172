//! No bytes make reading an archive of images panic, hold more than they are, or end elsewhere than at their end or an error.

#![no_main]

use layby::bundle::{Found, Index, List, Member, Members, docker_manifest, read_docker};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = std::str::from_utf8(bytes).map(List::read);
    let _ = docker_manifest(bytes, &[]);
    if let Ok(mut index) = Index::read(bytes) {
        index.sort();
        let written = index.to_json().expect("an index can be written");
        let mut again = Index::read(&written).expect("what was written can be read");
        again.sort();
        assert_eq!(again.images.len(), index.images.len());
    }
    let Ok(mut members) = Members::of(bytes) else {
        return;
    };
    while let Ok(Some(entry)) = members.next_entry() {
        let Found::File(member) = entry.found else {
            continue;
        };
        assert!(!member.to_string().split('/').any(|part| part == ".."));
        match member {
            Member::DockerManifest => {
                let Ok(json) = members.document(&member, entry.len) else {
                    return;
                };
                for image in read_docker(&json).unwrap_or_default() {
                    let _ = image.files();
                }
            }
            _ => {
                let mut buffer = [0; 512];
                let mut left = entry.len;
                while let Ok(count @ 1..) = members.read(&mut buffer) {
                    left = left.checked_sub(count as u64).expect("no more than was said");
                }
            }
        }
    }
});
