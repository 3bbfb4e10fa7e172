//! How large a cache may be: `cargo bench --bench scale`.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    reason = "a measurement that cannot be made has failed, and need not be exact"
)]

mod index;

fn main() {
    // The first pays for pages that the others find.
    index::measure(20_000);
    let small = index::measure(20_000);
    let large = index::measure(1_000_000);
    println!(
        "a victim of a million costs {:.1} times as much as one of twenty thousand",
        large / small
    );
}
