//! In which order one looks for a blob, so that no race fetches it twice. The loom test drives these very functions.
//!
//! A newcomer looks into the table and into the store, in either order, then claims. Between its look into the store and its
//! claim, a fetch may have committed and left the table; so the new leader looks into the store once more before it asks
//! upstream, if anything was committed since the newcomer's look began. And a leader leaves the table only when its commit
//! is visible and counted, so there is no moment in which a blob is in neither.

/// One who wants a blob.
pub(super) trait Seeker {
    /// The blob, or the way to it.
    type Found;
    /// Why the store cannot be looked into.
    type Error;

    /// Looks among the fetches under way.
    fn in_table(&self) -> Option<Self::Found>;

    /// How many commits there were before the look into the store.
    fn commits(&self) -> u64;

    /// Looks among what is committed, or did so before.
    fn in_store(&self) -> impl Future<Output = Result<Option<Self::Found>, Self::Error>> + Send;

    /// Looks among the fetches under way, and enters itself as the leader if nobody is there. `None`: the one that was
    /// there has ended meanwhile. There were `commits` when the look into the store began.
    fn claim(&self, commits: u64) -> Option<Self::Found>;
}

/// One who leads, under a lease `L`.
pub(super) trait Leading<L> {
    /// Why there is no blob.
    type Error: Send;

    /// Whether there was a commit since the newcomer's look into the store began.
    fn is_news(&self) -> bool;

    /// Looks into the store; whether the blob is there.
    fn look_again(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Fetches the blob, and verifies it. Whether it is to be committed: not if nobody wants it any more. Nothing of it is
    /// under way when this returns.
    fn fetch(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes the blob visible in the store.
    fn commit(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Tells everybody that it ends without the blob, goes, and gives the lease back, at once or later.
    fn fail(self, why: Self::Error, lease: L);
}

/// Finds the blob, its fetch, or itself the leader of one.
pub(super) async fn seek<S: Seeker + Sync>(seeker: &S) -> Result<S::Found, S::Error> {
    if let Some(found) = seeker.in_table() {
        return Ok(found);
    }
    let commits = seeker.commits();
    if let Some(found) = seeker.in_store().await? {
        return Ok(found);
    }
    loop {
        if let Some(found) = seeker.claim(commits) {
            return Ok(found);
        }
    }
}

/// Leads to the end. However that comes, the leader goes before its lease does.
pub(super) async fn lead<L: Send, W: Leading<L> + Send>(lease: L, mut leader: W) {
    match bring(&mut leader).await {
        Ok(()) => {
            drop(leader);
            drop(lease);
        }
        Err(why) => leader.fail(why, lease),
    }
}

async fn bring<L, W: Leading<L> + Send>(leader: &mut W) -> Result<(), W::Error> {
    let is_there = leader.is_news() && leader.look_again().await?;
    if is_there || !leader.fetch().await? {
        return Ok(());
    }
    leader.commit().await
}
