//! Images for others to take along: chosen, found whole, and told as a tar.
//!
//! First everything is planned, then it is told. What is told is held from then on, so that eviction passes it over, and
//! is compared with its digest as it goes out. Reads the disk and notes no use.

mod parts;
pub(super) mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures_util::stream;
use tokio_util::sync::CancellationToken;

use crate::bundle::{DockerImage, END, Index, IndexImage, Layout, Member, Named, header, padding};
use crate::oci::{Digest, Hasher, Reference};
use crate::proxy::manifests::ManifestRecord;
use crate::runtime::{PipeWriter, Tasks, pipe};
use crate::store::{BlobHold, RefKind, Store};

use super::names::{Names, Wanted};
use super::pins::Pins;
use super::walk::{self, Image};
use super::{AdminError, Archive, blocking, remove};
use parts::{Finder, Parts};
use report::{ExportPlan, ExportRequest, ExportedImage, PassedOverImage};

/// Exports images of a store.
pub(super) struct Exporter {
    pub(super) store: Arc<Store>,
    pub(super) names: Arc<Names>,
    pub(super) pins: Arc<Pins>,
    pub(super) tasks: Tasks,
}

/// Images that are to be exported, by their names, and whether each was asked for by it.
type Chosen = BTreeMap<String, (Image, bool)>;

/// What is gathered of all images.
#[derive(Default)]
struct Gathered {
    index: Index,
    docker: Vec<DockerImage>,
    manifests: BTreeMap<Digest, u64>,
    others: BTreeMap<Digest, u64>,
    images: Vec<ExportedImage>,
    passed_over: Vec<PassedOverImage>,
}

impl Exporter {
    /// What would be exported.
    pub(super) async fn plan(self, request: ExportRequest) -> Result<ExportPlan, AdminError> {
        blocking(move || self.planned(&request).map(|(plan, _)| plan)).await
    }

    /// The export itself.
    pub(super) async fn archive(self, request: ExportRequest) -> Result<Archive, AdminError> {
        let tasks = self.tasks.clone();
        let (len, telling) = blocking(move || self.prepared(&request)).await?;
        let (writer, reader) = pipe();
        let stopping = tasks.stopping();
        tasks.spawn(async move {
            let told = tokio::task::spawn_blocking(move || telling.tell(writer, &stopping));
            if let Err(error) = told.await {
                tracing::error!(%error, "an export broke off; please report this");
            }
        });
        let pieces = stream::unfold(reader, async |mut reader| {
            let piece = reader.next().await?;
            Some((piece, reader))
        });
        Ok(Archive {
            len: Some(len),
            pieces: Box::pin(pieces),
        })
    }

    fn prepared(&self, request: &ExportRequest) -> Result<(u64, Telling), AdminError> {
        let (plan, layout) = self.planned(request)?;
        if request
            .index
            .as_ref()
            .is_some_and(|index| *index != plan.index)
        {
            return Err(AdminError::Failed(
                "the images have changed since the export was planned; export again".to_owned(),
            ));
        }
        let mut holds = Vec::new();
        for (digest, len) in &layout.blobs {
            holds.extend(self.store.hold_blob(digest));
            // From here on it can only be removed by hand.
            if self.store.blob_len(digest)? != Some(*len) {
                return Err(gone(digest));
            }
        }
        let telling = Telling {
            store: Arc::clone(&self.store),
            layout,
            _holds: holds,
        };
        Ok((plan.archive_bytes, telling))
    }

    /// Finds everything. Blocks for as long as the images are many.
    fn planned(&self, request: &ExportRequest) -> Result<(ExportPlan, Layout), AdminError> {
        let chosen = self.chosen(request)?;
        if chosen.is_empty() {
            return Err(AdminError::NotFound(
                "no image in the cache is meant; `layby ls` says what is there".to_owned(),
            ));
        }
        let mut gathered = Gathered::default();
        for (image, is_named) in chosen.into_values() {
            self.gather(&image, is_named, &mut gathered)?;
        }
        if gathered.images.is_empty() {
            let names: Vec<&str> = gathered.passed_over.iter().map(|one| &*one.image).collect();
            return Err(AdminError::Failed(format!(
                "none of the images that are meant is here whole for any platform: {}; fetch them first: layby warm",
                names.join(", ")
            )));
        }
        gathered.index.bases.clone_from(&request.bases);
        gathered.index.sort();
        if !request.bases.is_empty() {
            // Docker would not find the layers that are left out.
            gathered.docker.clear();
        }
        let left_out: BTreeSet<&Digest> = request.without.iter().collect();
        let Gathered {
            index,
            docker,
            manifests,
            others,
            ..
        } = &gathered;
        let whole = Layout::new(index, docker, manifests, others).map_err(io::Error::other)?;
        let sum = |blobs: &[(Digest, u64)]| blobs.iter().map(|(_, len)| len).sum::<u64>();
        let (all_blobs, all_bytes) = (whole.blobs.len() as u64, sum(&whole.blobs));
        let mut layout = whole;
        layout
            .blobs
            .retain(|(digest, _)| !left_out.contains(digest));
        let (blobs, bytes) = (layout.blobs.len() as u64, sum(&layout.blobs));
        let index = layout.index_digest();
        let plan = ExportPlan {
            index: index.ok_or_else(|| io::Error::other("a layout without an index"))?,
            images: gathered.images,
            passed_over: gathered.passed_over,
            blobs,
            bytes,
            left_out_blobs: all_blobs - blobs,
            left_out_bytes: all_bytes - bytes,
            archive_bytes: layout.tar_len(),
        };
        Ok((plan, layout))
    }

    fn chosen(&self, request: &ExportRequest) -> Result<Chosen, AdminError> {
        let mut chosen = Chosen::new();
        if request.all || request.pinned {
            walk::each_image(&self.store, None, &mut |image| {
                let tag = image.tag.as_ref().map(|(tag, _)| tag);
                if request.all || self.pins.are_for(&image.place, tag, &image.digest) {
                    chosen.insert(image.name().to_string(), (image, false));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for text in &request.images {
            match self.names.wanted(text)? {
                Wanted::One(name) => {
                    let image = match &name.reference {
                        // Also one that only tags or indexes lead to.
                        Reference::Digest(digest) => Some(Image {
                            place: name.place.clone(),
                            tag: None,
                            digest: digest.clone(),
                        }),
                        Reference::Tag(_) => remove::find(&self.store, &name)?.pop(),
                    };
                    let image = image.ok_or_else(|| AdminError::unknown_image(&name))?;
                    chosen.insert(name.to_string(), (image, true));
                }
                wanted @ Wanted::Matching(_) => {
                    let before = chosen.len();
                    let mut is_any = false;
                    remove::each_wanted(&self.store, &wanted, &mut |image| {
                        is_any = true;
                        let name = image.name().to_string();
                        chosen.entry(name).or_insert((image, false));
                        Ok(ControlFlow::Continue(()))
                    })?;
                    if !is_any && chosen.len() == before {
                        return Err(AdminError::NotFound(format!(
                            "no image in the cache matches {text}; `layby ls` says what is there"
                        )));
                    }
                }
            }
        }
        Ok(chosen)
    }

    fn gather(
        &self,
        image: &Image,
        is_named: bool,
        gathered: &mut Gathered,
    ) -> Result<(), AdminError> {
        let name = image.name().to_string();
        let record = image
            .tag
            .as_ref()
            .map(|(_, record)| record.media_type.clone());
        let media_type = match record {
            Some(media_type) => Some(media_type),
            None => self.recorded_type(image)?,
        };
        let finder = Finder {
            store: &self.store,
            place: &image.place,
        };
        let (parts, info) = match finder.find(&image.digest, media_type.as_ref())? {
            Ok(found) => found,
            Err(why) if is_named => {
                return Err(AdminError::Failed(format!(
                    "{name} is not here whole for any platform: {why}; fetch it first: layby warm {name}"
                )));
            }
            Err(why) => {
                gathered
                    .passed_over
                    .push(PassedOverImage { image: name, why });
                return Ok(());
            }
        };
        let size = parts.manifests.get(&image.digest).copied();
        gathered.index.images.push(IndexImage {
            named: Named::Layby {
                upstream: image.place.upstream.to_string(),
                repository: image.place.repository.to_string(),
                tag: image.tag.as_ref().map(|(tag, _)| tag.to_string()),
            },
            digest: image.digest.clone(),
            size: size.unwrap_or_default(),
            media_type: Some(info.media_type.to_string()),
            manifests: parts.listed.clone(),
        });
        gathered.docker.extend(for_docker(image, &parts));
        gathered.images.push(ExportedImage {
            image: name,
            digest: image.digest.to_string(),
            platforms: parts.platforms,
            absent: parts.absent,
        });
        gathered.manifests.extend(parts.manifests);
        gathered.others.extend(parts.others);
        Ok(())
    }

    /// The type that a manifest was delivered with.
    fn recorded_type(&self, image: &Image) -> io::Result<Option<crate::oci::MediaType>> {
        let key = image.place.key(RefKind::Manifest(image.digest.clone()));
        let record = self.store.get_ref(&key)?;
        let record = record.and_then(|json| serde_json::from_slice::<ManifestRecord>(&json).ok());
        Ok(record.map(|record| record.media_type))
    }
}

/// The image as `docker load` takes it: for one platform, with all its layers here.
fn for_docker(image: &Image, parts: &Parts) -> Option<DockerImage> {
    let (tag, _) = image.tag.as_ref()?;
    let [only] = &parts.runnable[..] else {
        return None;
    };
    let is_image = matches!(
        only.config.media_type.as_deref(),
        Some(
            "application/vnd.docker.container.image.v1+json"
                | "application/vnd.oci.image.config.v1+json"
        )
    );
    let file = |digest: &Digest| {
        let is_here = parts.others.contains_key(digest);
        is_here.then(|| Member::Blob(digest.clone()).to_string())
    };
    let layers = only.layers.iter().map(|layer| file(&layer.digest));
    let place = &image.place;
    // Docker takes a first part without a dot for a part of the repository.
    let is_host = place.upstream.as_str().contains('.');
    (is_image && is_host).then_some(())?;
    Some(DockerImage {
        config: file(&only.config.digest)?,
        tags: vec![format!("{}/{}:{tag}", place.upstream, place.repository)],
        layers: layers.collect::<Option<_>>()?,
    })
}

/// An export that is being told.
struct Telling {
    store: Arc<Store>,
    layout: Layout,
    /// Nothing of it is evicted meanwhile.
    _holds: Vec<BlobHold>,
}

impl Telling {
    /// Blocks for as long as whoever reads takes.
    fn tell(self, mut writer: PipeWriter, stopping: &CancellationToken) {
        if let Err(error) = self.all(&mut writer, stopping)
            && !writer.is_closed()
        {
            tracing::warn!(%error, "an export broke off");
            writer.fail(error);
        }
    }

    fn all(&self, writer: &mut PipeWriter, stopping: &CancellationToken) -> io::Result<()> {
        for (name, content) in &self.layout.documents {
            let len = content.len() as u64;
            writer.write_all(&header(name, len))?;
            writer.write_all(content)?;
            writer.write_all(&vec![0; padding(len)])?;
        }
        for (digest, len) in &self.layout.blobs {
            self.blob(digest, *len, writer, stopping)?;
        }
        writer.write_all(&END)?;
        writer.flush()
    }

    fn blob(
        &self,
        digest: &Digest,
        len: u64,
        writer: &mut PipeWriter,
        stopping: &CancellationToken,
    ) -> io::Result<()> {
        let name = Member::Blob(digest.clone()).to_string();
        writer.write_all(&header(&name, len))?;
        let blob = self.store.peek_open(digest)?;
        let blob = blob.filter(|blob| blob.len == len);
        let blob = blob.ok_or_else(|| io::Error::other(gone(digest).to_string()))?;
        let unknown = || io::Error::other(format!("{digest} cannot be verified"));
        let mut hasher = Hasher::new(digest.algorithm()).ok_or_else(unknown)?;
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        while offset < len {
            if stopping.is_cancelled() {
                return Err(io::Error::other("layby is shutting down; export again"));
            }
            let count = usize::try_from(len - offset)
                .unwrap_or(usize::MAX)
                .min(PIECE);
            let piece = buffer.get_mut(..count).unwrap_or_default();
            blob.file.read_exact_at(piece, offset)?;
            hasher.update(piece);
            writer.write_all(piece)?;
            offset += count as u64;
        }
        if hasher.finish() != *digest {
            return Err(io::Error::other(format!(
                "the stored blob {digest} is damaged; `layby verify` moves it aside, so that it is fetched anew"
            )));
        }
        writer.write_all(&vec![0; padding(len)])
    }
}

fn gone(digest: &Digest) -> AdminError {
    AdminError::Failed(format!(
        "{digest} was removed while it was to be exported; export again"
    ))
}

/// Read at once.
const PIECE: usize = 256 * 1024;
