use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_side_has_is_left_out_and_asked_for_where_it_is_missing() {
    for is_at_rest in [false, true] {
        let fake = Fake::start().await;
        let cargo = Cargo::new();
        let near = cargo.pulled_by(&fake).await.at_rest(is_at_rest).await;
        let first = near.file("first.tar.zst");
        let list = near.file("first.list");
        let both = [
            "export",
            "-o",
            text(&first),
            "--list",
            text(&list),
            "org/app",
        ];
        near.run(&both).await.expect(0);
        let by_list = near.file("by-list.tar");
        let told = near
            .run(&[
                "export",
                "-o",
                text(&by_list),
                "--since",
                text(&list),
                "--all",
            ])
            .await
            .expect(0);
        assert!(told.out.contains("left out"), "{}", told.out);
        let by_file = near.file("by-file.tar");
        near.run(&[
            "export",
            "-o",
            text(&by_file),
            "--since",
            text(&first),
            "--all",
        ])
        .await
        .expect(0);
        assert!(read(&by_list) == read(&by_file));
        let whole = near.file("whole.tar");
        near.run(&["export", "-o", text(&whole), "--all"])
            .await
            .expect(0);
        let saved = read(&whole).len() - read(&by_file).len();
        assert!(saved as u64 > 140 * KIB, "{saved}");

        let far = Side::offline(&fake).await.at_rest(is_at_rest).await;
        let before = far.settled().await;
        let refused = far.run(&["import", text(&by_file)]).await.expect(1);
        assert!(refused.err.contains("earlier export"), "{}", refused.err);
        far.is_again(&before, "refused").await;
        far.run(&["import", text(&first)]).await.expect(0);
        let told = far.run(&["import", text(&by_file)]).await.expect(0);
        assert!(told.out.contains("3 images"), "{}", told.out);
        let again = far.file("again.tar");
        far.run(&["export", "-o", text(&again), "--all"])
            .await
            .expect(0);
        assert!(read(&again) == read(&whole));
        let far = if is_at_rest { far.serving().await } else { far };
        cargo.pull_from(&far).await;
    }
}
