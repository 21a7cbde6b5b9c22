//! Names of a simulated disk: directories, and which of their entries would survive a power failure. Pure.
//!
//! Each directory has the entries that programs see and those that are durable. An operation (create, remove, rename)
//! changes what is seen at once, and waits in one list in its order; syncing a directory makes durable the operations
//! that touch it, with all earlier ones that these stand on. A power failure keeps operations up to some point.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Component, Path},
    rc::Rc,
};

use super::{faults::Unsynced, random::Random, storage::Storage};

/// A file's identity, whatever its name.
pub type Inode = Rc<RefCell<Storage>>;

/// What a name stands for.
#[derive(Clone)]
pub enum Node {
    /// A file.
    File(Inode),
    /// A directory.
    Directory(Rc<Directory>),
}

/// A directory's entries.
#[derive(Default)]
pub struct Directory {
    seen: RefCell<BTreeMap<String, Node>>,
    durable: RefCell<BTreeMap<String, Node>>,
}

/// Changes that happen together: entries of one directory, or of two for a rename.
struct Operation {
    changes: Vec<(Rc<Directory>, String, Option<Node>)>,
}

/// All names of a disk.
#[derive(Default)]
pub struct Tree {
    root: Rc<Directory>,
    pending: Vec<Operation>,
}

fn error<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Tree {
    /// What a path stands for.
    pub fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Directory(Rc::clone(&self.root));
        for name in names(path)? {
            let Node::Directory(directory) = node else {
                return error(libc::ENOTDIR);
            };
            let next = directory.seen.borrow().get(name).cloned();
            node = match next {
                Some(next) => next,
                None => return error(libc::ENOENT),
            };
        }
        Ok(node)
    }

    /// The file at a path.
    pub fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.find(path)? {
            Node::File(inode) => Ok(inode),
            Node::Directory(_) => error(libc::EISDIR),
        }
    }

    /// The directory at a path.
    pub fn directory(&self, path: &Path) -> io::Result<Rc<Directory>> {
        match self.find(path)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => error(libc::ENOTDIR),
        }
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Rc<Directory>, &'a str)> {
        let Some(name) = names(path)?.last().copied() else {
            return error(libc::EEXIST);
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name))
    }

    fn apply(&mut self, changes: Vec<(Rc<Directory>, String, Option<Node>)>) {
        for (directory, name, node) in &changes {
            set(&directory.seen, name, node);
        }
        self.pending.push(Operation { changes });
    }

    /// Makes a new, empty file.
    pub fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let (parent, name) = self.parent(path)?;
        if parent.seen.borrow().contains_key(name) {
            return error(libc::EEXIST);
        }
        let inode = Inode::default();
        self.apply(vec![(parent, name.to_owned(), Some(Node::File(Rc::clone(&inode))))]);
        Ok(inode)
    }

    /// Makes a directory and its parents.
    pub fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = Rc::clone(&self.root);
        for name in names(path)? {
            let found = directory.seen.borrow().get(name).cloned();
            directory = match found {
                Some(Node::Directory(next)) => next,
                Some(Node::File(_)) => return error(libc::ENOTDIR),
                None => {
                    let new = Rc::new(Directory::default());
                    self.apply(vec![(
                        directory,
                        name.to_owned(),
                        Some(Node::Directory(Rc::clone(&new))),
                    )]);
                    new
                }
            };
        }
        Ok(())
    }

    /// Renames a file or directory, replacing a file or an empty directory of the new name.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let replaced = to_parent.seen.borrow().get(to_name).cloned();
        match (&node, replaced) {
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            (Node::Directory(_), Some(Node::Directory(old))) if old.seen.borrow().is_empty() => {}
            (Node::Directory(_), Some(Node::Directory(_))) => return error(libc::ENOTEMPTY),
            (Node::File(_), Some(Node::Directory(_))) => return error(libc::EISDIR),
            (Node::Directory(_), Some(Node::File(_))) => return error(libc::ENOTDIR),
        }
        if Rc::ptr_eq(&from_parent, &to_parent) && from_name == to_name {
            return Ok(());
        }
        self.apply(vec![
            (from_parent, from_name.to_owned(), None),
            (to_parent, to_name.to_owned(), Some(node)),
        ]);
        Ok(())
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (parent, name) = self.parent(path)?;
        self.apply(vec![(parent, name.to_owned(), None)]);
        Ok(())
    }

    /// Makes the entries of a directory durable.
    pub fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.directory(path)?;
        let mut touched = vec![directory];
        let mut is_needed = vec![false; self.pending.len()];
        for (number, operation) in self.pending.iter().enumerate().rev() {
            let touches = |(changed, _, _): &(Rc<Directory>, String, Option<Node>)| {
                touched.iter().any(|directory| Rc::ptr_eq(directory, changed))
            };
            if operation.changes.iter().any(touches) {
                is_needed[number] = true;
                touched.extend(operation.changes.iter().map(|(directory, _, _)| Rc::clone(directory)));
            }
        }
        let mut needed = is_needed.into_iter();
        self.pending.retain(|operation| {
            let is_needed = needed.next().expect("one for each operation");
            if is_needed {
                operation.make_durable();
            }
            !is_needed
        });
        Ok(())
    }

    /// Every file there is, once.
    pub fn files(&self) -> Vec<Inode> {
        let mut found = Vec::new();
        let mut below = vec![Rc::clone(&self.root)];
        while let Some(directory) = below.pop() {
            for node in directory.seen.borrow().values() {
                match node {
                    Node::File(inode) => found.push(Rc::clone(inode)),
                    Node::Directory(directory) => below.push(Rc::clone(directory)),
                }
            }
        }
        found
    }

    /// A power failure: names, and the content of the files that still have one.
    pub fn crash(&mut self, unsynced: Unsynced, random: &mut Random) {
        let survivors = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => self.pending.len(),
            Unsynced::Torn => random.index(self.pending.len() + 1),
        };
        for operation in self.pending.drain(..).take(survivors) {
            operation.make_durable();
        }
        let mut below = vec![Rc::clone(&self.root)];
        while let Some(directory) = below.pop() {
            let durable = directory.durable.borrow().clone();
            for node in durable.values() {
                if let Node::Directory(directory) = node {
                    below.push(Rc::clone(directory));
                }
            }
            *directory.seen.borrow_mut() = durable;
        }
        for inode in self.files() {
            inode.borrow_mut().crash(unsynced, random);
        }
    }
}

impl Directory {
    /// Names of the entries, sorted.
    pub fn list(&self) -> Vec<String> {
        self.seen.borrow().keys().cloned().collect()
    }
}

impl Operation {
    fn make_durable(&self) {
        for (directory, name, node) in &self.changes {
            set(&directory.durable, name, node);
        }
    }
}

fn set(entries: &RefCell<BTreeMap<String, Node>>, name: &str, node: &Option<Node>) {
    match node {
        Some(node) => entries.borrow_mut().insert(name.to_owned(), node.clone()),
        None => entries.borrow_mut().remove(name),
    };
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                names.pop();
            }
            Component::Normal(name) => match name.to_str() {
                Some(name) => names.push(name),
                None => return error(libc::EINVAL),
            },
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(tree: &mut Tree, unsynced: Unsynced) {
        tree.crash(unsynced, &mut Random::new(3));
    }

    fn list(tree: &Tree, path: &str) -> Vec<String> {
        tree.directory(Path::new(path))
            .map_or_else(|_| vec!["no such".to_owned()], |directory| directory.list())
    }

    #[test]
    fn only_synced_names_survive() {
        let mut tree = Tree::default();
        tree.create_directory(Path::new("/d/member")).unwrap();
        tree.sync_directory(Path::new("/")).unwrap();
        tree.create_file(Path::new("d/member/a")).unwrap();
        tree.sync_directory(Path::new("/d/member")).unwrap();
        tree.create_file(Path::new("/d/member/b")).unwrap();
        crash(&mut tree, Unsynced::Lost);
        // Syncing `/d/member` says nothing about the name `member` in `/d`.
        assert_eq!(list(&tree, "/"), ["d"]);
        assert_eq!(list(&tree, "/d"), Vec::<String>::new());
    }

    #[test]
    fn a_synced_rename_takes_what_it_stands_on_along() {
        let mut tree = Tree::default();
        tree.create_directory(Path::new("/wal.tmp")).unwrap();
        tree.create_file(Path::new("/wal.tmp/0.wal"))
            .unwrap()
            .borrow_mut()
            .write_durable(0, b"x");
        tree.sync_directory(Path::new("/wal.tmp")).unwrap();
        tree.rename(Path::new("/wal.tmp"), Path::new("/wal")).unwrap();
        tree.create_file(Path::new("/wal/1.wal")).unwrap();
        tree.sync_directory(Path::new("/")).unwrap();
        crash(&mut tree, Unsynced::Lost);
        assert_eq!(list(&tree, "/"), ["wal"]);
        assert_eq!(list(&tree, "/wal"), ["0.wal"]);
        assert_eq!(tree.file(Path::new("/wal/0.wal")).unwrap().borrow().current().len(), 1);
    }

    #[test]
    fn an_unsynced_rename_over_a_file_leaves_the_old_or_the_new_one() {
        for (unsynced, expected) in [(Unsynced::Lost, 1), (Unsynced::Kept, 2)] {
            let mut tree = Tree::default();
            for (name, len) in [("/a", 1), ("/b", 2)] {
                tree.create_file(Path::new(name))
                    .unwrap()
                    .borrow_mut()
                    .write_durable(0, &vec![0; len]);
            }
            tree.sync_directory(Path::new("/")).unwrap();
            tree.rename(Path::new("/b"), Path::new("/a")).unwrap();
            assert_eq!(list(&tree, "/"), ["a"]);
            crash(&mut tree, unsynced);
            assert_eq!(tree.file(Path::new("/a")).unwrap().borrow().current().len(), expected);
        }
    }

    #[test]
    fn errors_are_the_systems() {
        let mut tree = Tree::default();
        tree.create_file(Path::new("/f")).unwrap();
        tree.create_directory(Path::new("/d/e")).unwrap();
        let code = |error: io::Error| error.raw_os_error().unwrap();
        assert_eq!(code(tree.file(Path::new("/g")).map(drop).unwrap_err()), libc::ENOENT);
        assert_eq!(code(tree.file(Path::new("/d")).map(drop).unwrap_err()), libc::EISDIR);
        assert_eq!(code(tree.file(Path::new("/f/g")).map(drop).unwrap_err()), libc::ENOTDIR);
        assert_eq!(
            code(tree.create_file(Path::new("/f")).map(drop).unwrap_err()),
            libc::EEXIST
        );
        assert_eq!(
            code(tree.create_file(Path::new("/x/f")).map(drop).unwrap_err()),
            libc::ENOENT
        );
        assert_eq!(
            code(tree.create_directory(Path::new("/f/d")).unwrap_err()),
            libc::ENOTDIR
        );
        assert_eq!(
            code(tree.rename(Path::new("/f"), Path::new("/d")).unwrap_err()),
            libc::EISDIR
        );
        assert_eq!(code(tree.remove(Path::new("/d")).unwrap_err()), libc::EISDIR);
        assert_eq!(tree.files().len(), 1);
    }
}
