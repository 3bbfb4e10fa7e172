//! `[[warm]]`.

use super::*;
use crate::oci::Platforms;

#[test]
fn images_to_be_brought_have_defaults_for_the_rest() {
    let config = good(
        "[[warm]]\nimages = 'alpine'\n[[warm]]\nimages = ['ghcr.io/org/app:v1', 'a/b']\nplatforms = 'all'\nevery = '1d'",
    );
    let [first, second] = &config.warm[..] else {
        panic!("{:?}", config.warm)
    };
    assert_eq!(
        (&first.images[..], first.every),
        (&["alpine".to_owned()][..], Duration::from_hours(1))
    );
    assert!(matches!(&first.platforms, Platforms::Only(platforms) if platforms.len() == 1));
    assert_eq!(
        (second.images.len(), second.every),
        (2, Duration::from_hours(24))
    );
    assert_eq!(second.platforms, Platforms::All);
    assert!(good("").warm.is_empty());
}

#[test]
fn what_could_not_be_brought_is_a_fault_of_the_configuration() {
    for (line, key, said) in [
        ("images = []", "images", "names no image"),
        ("every = '2h'", "images", "names no image"),
        ("images = ['a b']", "images", "is not the name of an image"),
        (
            "images = ['alpine:-x']",
            "images",
            "has no right tag or digest",
        ),
        ("images = ['quay.oi/a/b']", "images", "is not configured"),
        ("images = ['a']\nevery = '10s'", "every", "too often"),
        (
            "images = ['a']\nplatforms = ['amd64']",
            "platforms",
            "is not a platform",
        ),
        (
            "images = ['a']\nimage = ['b']",
            "image",
            "did you mean images?",
        ),
    ] {
        let found = faults(&format!("[[warm]]\n{line}"));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        let is_told = found[0].contains(said) && found[0].contains(&format!("warm[0].{key}: "));
        assert!(is_told, "{line}: {found:?}");
    }
    let kept_out = "[upstreams.'docker.io']\ndeny = ['library/secret']\n[[warm]]\nimages = ['docker.io/secret']";
    assert!(faults(kept_out)[0].contains("is kept out"));
}
