//! The repositories that something is cached of, as clients name them.

use std::sync::Arc;

use crate::oci;

use super::context::Context;
use super::singles::Singles;
use super::{CatalogPage, Error, Place, Selector};

/// The list of cached repositories.
pub(super) struct Catalog {
    ctx: Arc<Context>,
    selector: Arc<Selector>,
    walks: Singles<(), Arc<Vec<String>>>,
}

/// Entries of a page whose size nobody asked for.
const PAGE: u32 = 1000;

impl Catalog {
    /// The catalog of the disk that `ctx` knows, in names that `selector` would find again.
    pub(super) fn new(ctx: Arc<Context>, selector: Arc<Selector>) -> Self {
        Self {
            walks: Singles::new(ctx.tasks.clone()),
            ctx,
            selector,
        }
    }

    /// At most `n` names that come after `last`.
    pub(super) async fn page(
        self: &Arc<Self>,
        n: Option<u32>,
        last: Option<&str>,
    ) -> Result<CatalogPage, Error> {
        let deadline = self.ctx.own_deadline();
        let walk = || Arc::clone(self).walk();
        let (names, _) = self.walks.run(&(), deadline, walk).await?;
        let (page, more) = oci::page(&names, n.or(Some(PAGE)), last);
        Ok(CatalogPage {
            repositories: page.to_vec(),
            more,
        })
    }

    async fn walk(self: Arc<Self>) -> Result<Arc<Vec<String>>, Error> {
        let found = self.ctx.records.repositories().await?;
        let mut names: Vec<String> = found
            .into_iter()
            .map(|(upstream, repository)| {
                self.selector.written(&Place {
                    upstream,
                    repository,
                })
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(Arc::new(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use crate::proxy::testing::{World, place};
    use crate::store::RefKind;

    fn catalog() -> (World, Arc<Catalog>) {
        let world = World::new();
        for (upstream, repository) in [
            ("docker.io", "library/ubuntu"),
            ("docker.io", "acme/web"),
            ("ghcr.io", "acme/web"),
        ] {
            let tag = RefKind::Tag("latest".parse().unwrap());
            let key = place(upstream, repository).key(tag);
            world.records.seed(&key, b"{}");
        }
        let selector = Selector::new(&Config::from_toml("", &Overrides::default()).unwrap());
        let catalog = Catalog::new(Arc::clone(&world.ctx), Arc::new(selector));
        (world, Arc::new(catalog))
    }

    #[tokio::test]
    async fn repositories_are_named_as_clients_name_them_in_order() {
        let (_world, catalog) = catalog();
        let page = catalog.page(None, None).await.unwrap();
        assert_eq!(
            page.repositories,
            ["acme/web", "ghcr.io/acme/web", "library/ubuntu"]
        );
        assert!(!page.more);
    }

    #[tokio::test]
    async fn pages_follow_one_another_without_gap_or_overlap() {
        let (_world, catalog) = catalog();
        let first = catalog.page(Some(2), None).await.unwrap();
        assert_eq!(first.repositories, ["acme/web", "ghcr.io/acme/web"]);
        assert!(first.more);
        let second = catalog
            .page(Some(2), Some("ghcr.io/acme/web"))
            .await
            .unwrap();
        assert_eq!(second.repositories, ["library/ubuntu"]);
        assert!(!second.more);
    }

    #[tokio::test]
    async fn a_page_of_none_promises_no_next_one() {
        let (_world, catalog) = catalog();
        let page = catalog.page(Some(0), None).await.unwrap();
        assert_eq!(page.repositories, Vec::<String>::new());
        assert!(!page.more);
    }
}
