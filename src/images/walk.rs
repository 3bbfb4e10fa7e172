//! Images anywhere in a tree of values: pod templates in whatever kind of object, and what tools tell of images as JSON.

use std::collections::HashSet;
use std::rc::Rc;

use super::node::{Node, Value};
use super::{Finds, ListError};

/// Lists of containers, wherever they are.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

pub(super) fn read(document: &Rc<Node>, finds: &mut Finds) -> Result<(), ListError> {
    let mut walk = Walk {
        finds,
        seen: HashSet::new(),
    };
    match &document.value {
        // An empty document, as between two separators.
        Value::Text(text) if text.is_empty() || text == "null" || text == "~" => Ok(()),
        Value::Text(text) => Err(ListError::at(
            document.line,
            format!("{text:?} is no object of Kubernetes; say what this is with --from"),
        )),
        _ => walk.visit(document),
    }
}

struct Walk<'a> {
    finds: &'a mut Finds,
    /// What aliases stand for is visited once.
    seen: HashSet<*const Node>,
}

impl Walk<'_> {
    /// As deep as trees are.
    fn visit(&mut self, node: &Rc<Node>) -> Result<(), ListError> {
        if matches!(node.value, Value::Text(_)) || !self.seen.insert(Rc::as_ptr(node)) {
            return Ok(());
        }
        self.as_told_by_tools(node)?;
        for (key, value) in node.entries() {
            if CONTAINERS.contains(&key.as_str()) {
                self.images_of(value, &["image"])?;
            } else if key == "volumes" {
                self.images_of(value, &["image", "reference"])?;
            }
            self.visit(value)?;
        }
        for item in node.list() {
            self.visit(item)?;
        }
        Ok(())
    }

    /// The image of each in a list, at the end of this path.
    fn images_of(&mut self, list: &Node, path: &[&str]) -> Result<(), ListError> {
        for item in list.list() {
            let mut at = Some(item);
            for key in path {
                at = at.and_then(|node| node.get(key));
            }
            if let Some(node) = at
                && let Some(image) = node.text()
                && !image.is_empty()
            {
                self.finds.image(image, node.line)?;
            }
        }
        Ok(())
    }

    /// An image as docker, podman, nerdctl and crictl tell of it.
    fn as_told_by_tools(&mut self, node: &Node) -> Result<(), ListError> {
        let text = |key: &str| node.get(key).and_then(|value| value.text());
        if let (Some(repository), Some(tag)) = (text("Repository"), text("Tag")) {
            if repository == "<none>" || tag == "<none>" {
                self.finds
                    .note(node.line, "an image without a name is passed over");
                return Ok(());
            }
            return self.finds.image(&format!("{repository}:{tag}"), node.line);
        }
        // A container of docker ps; inspected ones have a digest here, and their names elsewhere.
        if let Some(image) = text("Image")
            && text("Names").is_some()
        {
            return self.finds.image(image, node.line);
        }
        let list = |keys: [&str; 2]| {
            let found = keys.iter().find_map(|key| node.get(key));
            found.map(|found| found.list()).unwrap_or_default()
        };
        let tags = list(["repoTags", "RepoTags"]);
        let digests = list(["repoDigests", "RepoDigests"]);
        // By its digest only where it has no other name.
        let names = if tags.is_empty() { digests } else { tags };
        for name in names {
            if let Some(name) = name.text()
                && !name.contains("<none>")
            {
                self.finds.image(name, node.line)?;
            }
        }
        Ok(())
    }
}
