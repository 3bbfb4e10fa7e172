//! A world of images that share layers, with sizes like real ones.

use crate::random::{Random, Zipf};

/// Something that is stored: a manifest, a configuration, a layer. Index into [`Images::sizes`].
pub(crate) type Object = u32;

/// Repositories, their versions over time, and what each version is made of.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) sizes: Vec<u64>,
    /// Per repository, per version, from the oldest: its objects, those of its base first.
    pub(crate) repositories: Vec<Vec<Image>>,
}

/// What is asked for when an image is pulled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    /// Layers that others have too, which a node often has already.
    pub(crate) base: Vec<Object>,
    /// Manifest, configuration, and layers of its own.
    pub(crate) own: Vec<Object>,
}

/// Distinct base images.
const BASES: usize = 40;

/// Versions of each repository.
pub(crate) const VERSIONS: usize = 40;

/// Layers of a public registry, compressed: half are below 4 MB, nine in ten below 63 MB (Zhao et al., Large-Scale
/// Analysis of the Docker Hub Dataset, 2019). A log-normal of that median and 90th percentile.
const MEDIAN_LAYER: f64 = 4.0e6;
const LAYER_SIGMA: f64 = 2.15;
const LARGEST_LAYER: f64 = 8.0e9;

impl Images {
    pub(crate) fn new(repositories: usize, random: &mut Random) -> Self {
        let mut images = Self {
            sizes: Vec::new(),
            repositories: Vec::new(),
        };
        let bases: Vec<Vec<Object>> = (0..BASES)
            .map(|_| {
                let layers = 1 + random.below(5);
                (0..layers).map(|_| images.layer(random)).collect()
            })
            .collect();
        let popular = Zipf::new(BASES, 1.0);
        for _ in 0..repositories {
            let base = &bases[popular.draw(random)];
            let versions = images.versions(base, random);
            images.repositories.push(versions);
        }
        images
    }

    /// A release changes the layers of the program, seldom those of its dependencies, never those of its base.
    fn versions(&mut self, base: &[Object], random: &mut Random) -> Vec<Image> {
        let mut dependencies: Vec<Object> = Vec::new();
        let mut versions = Vec::new();
        for version in 0..VERSIONS {
            if version == 0 || random.chance(0.2) {
                let layers = 1 + random.below(4);
                dependencies = (0..layers).map(|_| self.layer(random)).collect();
            }
            let program = 1 + random.below(3);
            let mut own = vec![self.object(2_500), self.object(7_000)];
            own.extend(&dependencies);
            own.extend((0..program).map(|_| self.layer(random)));
            versions.push(Image {
                base: base.to_vec(),
                own,
            });
        }
        versions
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size between 32 bytes and 8 GB"
    )]
    fn layer(&mut self, random: &mut Random) -> Object {
        let size = random.log_normal(MEDIAN_LAYER, LAYER_SIGMA);
        self.object(size.clamp(32.0, LARGEST_LAYER) as u64)
    }

    fn object(&mut self, size: u64) -> Object {
        self.sizes.push(size);
        Object::try_from(self.sizes.len() - 1).expect("fewer than 4 billion objects")
    }
}
