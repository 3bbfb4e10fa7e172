use super::*;

/// Every file of a directory, by its name in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(dir, &mut found);
    let inside = |path: PathBuf| path.strip_prefix(dir).expect("within").to_owned();
    found
        .into_iter()
        .map(|(path, bytes)| (inside(path), bytes))
        .collect()
}

/// Cargo across the gap, and out again on the other side.
async fn carried(name: &str, is_at_rest: bool) {
    let fake = Fake::start().await;
    let cargo = Cargo::new();
    let near = cargo.pulled_by(&fake).await.at_rest(is_at_rest).await;
    fake.go_down().await;
    let export = near.file(name);
    let told = near
        .run(&["export", "--all", "-o", text(&export)])
        .await
        .expect(0);
    assert!(
        told.out.contains("exported registry.test/org/app:latest\n"),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("exported registry.test/org/many:latest"),
        "{}",
        told.out
    );

    let far = Side::offline(&fake).await.at_rest(is_at_rest).await;
    let told = far.run(&["import", text(&export)]).await.expect(0);
    assert!(
        told.out.contains("imported registry.test/org/web:v1\n"),
        "{}",
        told.out
    );
    assert!(told.out.contains("pinned"), "{}", told.out);
    let again = far.file(name);
    far.run(&["export", "--all", "-o", text(&again)])
        .await
        .expect(0);
    if export.is_dir() {
        assert!(files(&export) == files(&again), "another directory");
        assert!(files(&export).len() > 10);
    } else {
        assert!(read(&export) == read(&again), "other bytes");
    }

    let far = if is_at_rest { far.serving().await } else { far };
    cargo.pull_from(&far).await;
    let pins = far.run(&["pin"]).await.expect(0).out;
    assert_eq!(
        pins,
        "registry.test/org/app:latest\nregistry.test/org/many:latest\nregistry.test/org/web:v1\n"
    );
    let verified = far.run(&["verify"]).await.expect(0);
    assert!(verified.out.contains("nothing wrong"), "{}", verified.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_cross_the_gap_as_a_tar_between_servers() {
    carried("images.tar", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_cross_the_gap_as_a_tar_between_directories_at_rest() {
    carried("images.tar", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_cross_the_gap_compressed() {
    for is_at_rest in [true, false] {
        carried("images.tar.zst", is_at_rest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_cross_the_gap_as_a_directory() {
    for is_at_rest in [true, false] {
        carried("images/", is_at_rest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_do_not_depend_on_how_images_are_named_or_where_they_go() {
    let fake = Fake::start().await;
    let near = Cargo::new().pulled_by(&fake).await;
    let one = near.file("one.tar");
    near.run(&["export", "-o", text(&one), "org/web:v1", "org/app"])
        .await
        .expect(0);
    let list = near.file("list");
    std::fs::write(
        &list,
        "# both\nregistry.test/org/app:latest # first\n\norg/web:v1\n",
    )
    .expect("a list");
    let two = near.file("two.tar");
    near.run(&[
        "export",
        "-o",
        text(&two),
        "-f",
        text(&list),
        "registry.test/org/w*:*",
    ])
    .await
    .expect(0);
    assert!(read(&one) == read(&two));
    near.run(&["pin", "org/app", "org/web:v1"]).await.expect(0);
    let near = near.at_rest(true).await;
    let three = near.file("three.tar");
    near.run(&["export", "-o", text(&three), "--pinned"])
        .await
        .expect(0);
    assert!(read(&one) == read(&three));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_here_whole_is_refused_by_name_and_passed_over_otherwise() {
    for is_at_rest in [false, true] {
        let fake = Fake::start().await;
        let cargo = Cargo::new();
        let near = cargo.pulled_by(&fake).await;
        let half = Image::new(75, &[10, 20]);
        half.push(&fake, "org/half", "latest");
        near.layby
            .get("/v2/org/half/manifests/latest")
            .await
            .expect(200);
        has_tag(&near.layby, "org/half", "latest").await;
        let near = near.at_rest(is_at_rest).await;
        let export = near.file("images.tar");
        let refused = near
            .run(&["export", "-o", text(&export), "org/app", "org/half"])
            .await
            .expect(1);
        assert!(
            refused
                .err
                .contains("registry.test/org/half:latest is not here whole"),
            "{}",
            refused.err
        );
        let unknown = near
            .run(&["export", "-o", text(&export), "org/none"])
            .await
            .expect(1);
        assert!(
            unknown.err.contains("org/none:latest is not in the cache"),
            "{}",
            unknown.err
        );
        assert!(!export.try_exists().expect("a look"));
        let told = near
            .run(&["export", "-o", text(&export), "--all"])
            .await
            .expect(0);
        assert!(
            told.out
                .contains("passed over registry.test/org/half:latest"),
            "{}",
            told.out
        );
        let left: Vec<_> = files(export.parent().expect("a parent"))
            .into_keys()
            .filter(|name| name.to_string_lossy().contains("partial"))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_is_told_and_its_upstream_is_asked_when_it_can_be() {
    for is_at_rest in [false, true] {
        let fake = Fake::start().await;
        let cargo = Cargo::new();
        let near = cargo.pulled_by(&fake).await;
        let export = near.file("old.tar");
        near.run(&["export", "-o", text(&export), "org/app"])
            .await
            .expect(0);
        let newer = Image::new(76, &[10, 20]);
        newer.push(&fake, APP, "latest");
        let setup = Setup::over(&fake).of(UPSTREAM, r#"tag_ttl = "1h""#);
        let other = Side::new(setup).await;
        newer.pull(other.layby.address(), APP, "latest").await;
        has_tag(&other.layby, APP, "latest").await;
        let other = other.at_rest(is_at_rest).await;
        let told = other.run(&["import", text(&export)]).await.expect(0);
        let (is, was) = (cargo.app.manifest.digest(), newer.manifest.digest());
        let short = |digest: &layby::oci::Digest| digest.encoded()[..12].to_owned();
        assert!(
            told.out.contains(&short(is)) && told.out.contains(&short(was)),
            "{}",
            told.out
        );
        let other = if is_at_rest {
            other.serving().await
        } else {
            other
        };
        fake.go_down().await;
        other.pull(APP, "latest", &cargo.app).await;
        fake.come_back().await;
        other
            .layby
            .clock()
            .advance(std::time::Duration::from_secs(60));
        other.pull(APP, "latest", &newer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_has_another_name_and_no_pin_where_that_is_asked_for() {
    let fake = Fake::start().await;
    let cargo = Cargo::new();
    let near = cargo.pulled_by(&fake).await;
    let export = near.file("app.tar");
    near.run(&["export", "-o", text(&export), "org/app"])
        .await
        .expect(0);
    let far = Side::offline(&fake).await;
    far.run(&[
        "import",
        text(&export),
        "--as",
        "elsewhere/app:v2",
        "--no-pin",
    ])
    .await
    .expect(0);
    far.pull("elsewhere/app", "v2", &cargo.app).await;
    far.layby
        .get(&format!("/v2/{APP}/manifests/latest"))
        .await
        .expect(404);
    assert_eq!(
        far.run(&["pin"])
            .await
            .expect(0)
            .out
            .matches("registry")
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_makes_the_data_directory_where_there_is_none_and_no_other_command_does() {
    let fake = Fake::start().await;
    let cargo = Cargo::new();
    let near = cargo.pulled_by(&fake).await;
    let export = near.file("app.tar");
    near.run(&["export", "-o", text(&export), "org/app"])
        .await
        .expect(0);
    let far = Side::offline(&fake).await.at_rest(true).await;
    std::fs::remove_dir_all(far.layby.data()).expect("it goes");
    far.run(&["ls"]).await.expect(3);
    assert!(!far.layby.data().try_exists().expect("a look"));
    far.run(&["import", text(&export)]).await.expect(0);
    let far = far.serving().await;
    far.pull(APP, "latest", &cargo.app).await;
    // Something else is not taken for one.
    let far = far.at_rest(true).await;
    std::fs::remove_dir_all(far.layby.data()).expect("it goes");
    std::fs::create_dir(far.layby.data()).expect("a directory");
    std::fs::write(far.layby.data().join("photos"), "x").expect("a file");
    far.run(&["import", text(&export)]).await.expect(3);
}
