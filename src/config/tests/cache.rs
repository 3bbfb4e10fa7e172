//! `[cache]`.

use super::*;

#[test]
fn pins_are_patterns_or_digests_of_known_upstreams() {
    let app =
        "ghcr.io/org/app@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let config = good(&format!(
        "[cache]\npin = ['docker.io/library/*:*', '{app}']"
    ));
    let pins: Vec<String> = config.cache.pins.iter().map(ToString::to_string).collect();
    assert_eq!(pins, ["docker.io/library/*:*", app]);
    assert_eq!(good("[cache]\npin = 'docker.io/**'").cache.pins.len(), 1);
    for (pin, said) in [
        ("alpine", "names no upstream and repository"),
        ("dokcer.io/library/*", "did you mean docker.io?"),
        ("docker.io/alpine", "write docker.io/library/alpine"),
        (
            "docker.io/library/a@sha256:00",
            "names no image by its digest",
        ),
        (
            &app.replace("ghcr.io", "ghcr.oi"),
            "is not an upstream's key",
        ),
    ] {
        let found = faults(&format!("[cache]\npin = ['{pin}']"));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{pin}: {found:?}"
        );
        assert!(found[0].starts_with("line 2: cache.pin: "), "{found:?}");
    }
}

#[test]
fn the_scrub_has_an_interval_or_is_off() {
    let interval = |text: &str| good(text).cache.scrub_interval;
    assert_eq!(interval(""), Some(Duration::from_hours(30 * 24)));
    let day = "[cache]\nscrub_interval = '1d'";
    assert_eq!(interval(day), Some(Duration::from_hours(24)));
    assert_eq!(interval("[cache]\nscrub_interval = 'none'"), None);
    for wrong in ["0s", "forever", "often"] {
        let found = faults(&format!("[cache]\nscrub_interval = '{wrong}'"));
        assert!(
            found.len() == 1 && found[0].contains(r#"or "none""#),
            "{wrong}: {found:?}"
        );
    }
}
