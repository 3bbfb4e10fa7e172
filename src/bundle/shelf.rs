//! An archive that can be read in any order: a directory, or a tar that is not compressed. It is told anew as a tar in the
//! order that serves best: what lists the images, their manifests, and only then the blobs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::oci::{Digest, ManifestInfo, MediaType};

use super::compression::{Compression, START};
use super::list::List;
use super::members::{Found, Members, Source};
use super::write::in_tar;
use super::{
    DOCKER_MANIFEST, END, Fault, INDEX, Index, MOST_DOCUMENT, MOST_HOPS, MOST_MANIFEST, Member,
    OCI_LAYOUT, header, padding, read_docker, write_docker,
};

/// Files of an archive by their names.
#[derive(Debug)]
pub struct Shelf {
    places: BTreeMap<String, Place>,
    aliases: BTreeMap<String, String>,
}

/// Where a file is.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    offset: u64,
    len: u64,
}

/// An archive that is told as a tar, in the order that serves best.
#[derive(Debug)]
pub struct Telling(Vec<Part>);

#[derive(Debug)]
struct Part {
    name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(Place),
    Bytes(Vec<u8>),
}

/// What `docker save` has written, told without links.
struct Saved {
    manifest: Vec<u8>,
    files: Vec<String>,
}

/// A tar in a file.
struct InFile {
    file: File,
    position: u64,
    len: u64,
}

impl Read for InFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl Source for InFile {
    fn advance(&mut self, count: u64) -> io::Result<()> {
        let next = self.position.saturating_add(count);
        if next > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.seek(SeekFrom::Start(next))?;
        self.position = next;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Shelf {
    /// The archive at `path`; `None` where it has to be read as it comes.
    pub fn open(path: &Path) -> Result<Option<Self>, Fault> {
        if fs::metadata(path)?.is_dir() {
            return Self::of_directory(path).map(Some);
        }
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut start = Vec::new();
        (&mut file).take(START).read_to_end(&mut start)?;
        if Compression::of(&start)? != Compression::None {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0))?;
        Self::of_tar(path, file).map(Some)
    }

    fn of_tar(path: &Path, file: File) -> Result<Self, Fault> {
        let len = file.metadata()?.len();
        let mut members = Members::over(InFile {
            file,
            position: 0,
            len,
        });
        let (mut places, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        while let Some(entry) = members.next_entry()? {
            match entry.found {
                Found::File(member) => {
                    let place = Place {
                        path: path.to_owned(),
                        offset: members.position(),
                        len: entry.len,
                    };
                    places.insert(member.to_string(), place);
                }
                Found::Alias { name, target } => _ = aliases.insert(name, target),
            }
        }
        Ok(Self { places, aliases })
    }

    /// Only names that a layout has are looked at, and links are not followed.
    fn of_directory(path: &Path) -> Result<Self, Fault> {
        let mut places = BTreeMap::new();
        let mut note = |name: String, path: PathBuf| -> Result<(), Fault> {
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if !found.is_file() {
                let what = "not a file, or a link to one";
                return Err(Fault::Kind { name, what });
            }
            let place = Place {
                path,
                offset: 0,
                len: found.len(),
            };
            places.insert(name, place);
            Ok(())
        };
        for name in [OCI_LAYOUT, INDEX, DOCKER_MANIFEST] {
            note(name.to_owned(), path.join(name))?;
        }
        for algorithm in ["sha256", "sha512"] {
            let dir = path.join("blobs").join(algorithm);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let name = entry?.file_name();
                let Some(name) = name.to_str() else { continue };
                let in_archive = format!("blobs/{algorithm}/{name}");
                if let Ok(Some(Member::Blob(_))) = Member::of(in_archive.as_bytes()) {
                    note(in_archive, dir.join(name))?;
                }
            }
        }
        Ok(Self {
            places,
            aliases: BTreeMap::new(),
        })
    }

    /// What is in it and belongs to its images. What an earlier export left beside it in a directory is not told to anybody,
    /// so that nobody has it from here.
    pub fn list(&self) -> Result<List, Fault> {
        let index = self.small(INDEX, MOST_DOCUMENT)?.ok_or(Fault::NoImages)?;
        let names = self.of_index(&Index::read(&index)?)?;
        let blobs = names.iter().filter(|name| self.places.contains_key(*name));
        let blobs = blobs.filter_map(|name| match Member::of(name.as_bytes()) {
            Ok(Some(Member::Blob(digest))) => Some(digest),
            _ => None,
        });
        Ok(List {
            exports: [Digest::sha256(&index)].into(),
            blobs: blobs.collect(),
        })
    }

    /// What is to be told of it. Fails where it lists no image.
    pub fn telling(&self) -> Result<Telling, Fault> {
        let mut told = Vec::new();
        let names = match self.small(INDEX, MOST_DOCUMENT)? {
            Some(index) => {
                told.extend([OCI_LAYOUT, INDEX, DOCKER_MANIFEST].map(str::to_owned));
                told.extend(self.of_index(&Index::read(&index)?)?);
                return Ok(Telling(self.parts(told)));
            }
            None => self.of_docker()?,
        };
        told.extend(names.files);
        let mut parts = vec![Part {
            name: DOCKER_MANIFEST.to_owned(),
            content: Content::Bytes(names.manifest),
        }];
        parts.extend(self.parts(told));
        Ok(Telling(parts))
    }

    fn parts(&self, names: Vec<String>) -> Vec<Part> {
        let mut seen = HashSet::new();
        let new = names.into_iter().filter(|name| seen.insert(name.clone()));
        new.filter_map(|name| {
            let content = Content::File(self.places.get(&name)?.clone());
            Some(Part { name, content })
        })
        .collect()
    }

    /// Manifests, then what they lead to.
    fn of_index(&self, index: &Index) -> Result<Vec<String>, Fault> {
        let (mut manifests, mut blobs) = (Vec::new(), Vec::new());
        let name = |digest: &Digest| Member::Blob(digest.clone()).to_string();
        let first = index.images.iter();
        let mut waiting: VecDeque<_> = first
            .map(|image| (image.digest.clone(), image.media_type.clone()))
            .collect();
        let mut seen: HashSet<Digest> = waiting.iter().map(|(digest, _)| digest.clone()).collect();
        while let Some((digest, media_type)) = waiting.pop_front() {
            let Some(bytes) = self.small(&name(&digest), MOST_MANIFEST)? else {
                continue;
            };
            manifests.push(name(&digest));
            let media_type = media_type.as_deref().and_then(MediaType::parse);
            // What cannot be understood is for the importer to refuse.
            let Ok(info) = ManifestInfo::parse(media_type.as_ref(), &bytes) else {
                continue;
            };
            blobs.extend(info.blobs().map(|blob| name(&blob.digest)));
            for child in info.manifests() {
                if seen.insert(child.digest.clone()) {
                    waiting.push_back((child.digest.clone(), child.media_type.clone()));
                }
            }
        }
        blobs.sort();
        manifests.extend(blobs);
        Ok(manifests)
    }

    /// Configurations, then layers; no links any more.
    fn of_docker(&self) -> Result<Saved, Fault> {
        let json = self
            .small(DOCKER_MANIFEST, MOST_DOCUMENT)?
            .ok_or(Fault::NoImages)?;
        let mut images = read_docker(&json)?;
        let (mut files, mut layers) = (Vec::new(), Vec::new());
        let mut bytes = 0_u64;
        for image in &mut images {
            let mut names = image.files()?.into_iter();
            files.extend(names.next().map(|config| config.to_string()));
            image.layers.clear();
            for layer in names {
                let layer = self.real(&layer.to_string());
                // Short links may lead to long names.
                bytes = bytes.saturating_add(layer.len() as u64);
                if bytes > MOST_DOCUMENT {
                    return Err(Fault::TooMuch("64 MiB of names"));
                }
                image.layers.push(layer);
            }
            layers.extend(image.layers.iter().cloned());
        }
        files.extend(layers);
        Ok(Saved {
            manifest: write_docker(&images)?,
            files,
        })
    }

    /// The name of the file itself, for one that may be a link to it. After too many links it is that of one, which is no
    /// file: for the importer to refuse.
    fn real(&self, name: &str) -> String {
        let mut name = name;
        for _ in 0..MOST_HOPS {
            match self.aliases.get(name) {
                Some(target) => name = target,
                None => break,
            }
        }
        name.to_owned()
    }

    fn small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let Some(place) = self.places.get(name) else {
            return Ok(None);
        };
        if place.len > most {
            return Err(Fault::TooLarge {
                name: name.to_owned(),
                len: place.len,
                most,
            });
        }
        let mut bytes = Vec::new();
        place.open()?.read_to_end(&mut bytes)?;
        if bytes.len() as u64 == place.len {
            Ok(Some(bytes))
        } else {
            Err(Fault::Cut)
        }
    }
}

impl Telling {
    /// Bytes of the tar.
    pub fn len(&self) -> u64 {
        let parts = self.0.iter();
        let files = parts.map(|part| in_tar(&part.name, part.content.len()));
        files.sum::<u64>() + END.len() as u64
    }

    /// Whether there is nothing to be told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes it as a tar.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for Part { name, content } in &self.0 {
            let len = content.len();
            out.write_all(&header(name, len))?;
            match content {
                Content::Bytes(bytes) => out.write_all(bytes)?,
                Content::File(place) => place.copy(out)?,
            }
            out.write_all(&vec![0; padding(len)])?;
        }
        out.write_all(&END)?;
        out.flush()
    }
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::File(place) => place.len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl Place {
    fn open(&self) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.len))
    }

    fn copy(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut content = BufReader::with_capacity(COPIED, self.open()?);
        if io::copy(&mut content, out)? == self.len {
            return Ok(());
        }
        let message = format!("{} has become shorter", self.path.display());
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
    }
}

/// What the other side has, as an earlier export or a list of one says.
pub fn since(path: &Path) -> Result<List, Fault> {
    if fs::metadata(path)?.is_file() {
        let mut start = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut start)?;
        if List::is_start(&start) {
            return List::read(&fs::read_to_string(path)?);
        }
    }
    if let Some(shelf) = Shelf::open(path)? {
        return shelf.list();
    }
    let mut members = Members::of(File::open(path)?)?;
    let (mut list, mut index) = (List::default(), None);
    while let Some(entry) = members.next_entry()? {
        match entry.found {
            Found::File(Member::Blob(digest)) => _ = list.blobs.insert(digest),
            Found::File(member @ Member::Index) => {
                index = Some(members.document(&member, entry.len)?);
            }
            _ => {}
        }
    }
    let index = index.ok_or(Fault::NoImages)?;
    list.exports.insert(Digest::sha256(&index));
    Ok(list)
}

/// Bytes that are copied at once.
const COPIED: usize = 256 * 1024;
