//! The prefix cache: pages of KV cache by the tokens that they are computed from.
//!
//! A radix tree whose edges are blocks of tokens, as long as a page of the cache: what a page holds depends on its
//! own tokens and on all before them, which is a path from the root. Every tenant has a root of its own. Running
//! sequences put their pages here as soon as they are full, and pin the path that they stand on; when a sequence
//! ends its last page comes too, full or not. Pages that nobody stands on are evicted, the least recently used
//! first, from the leaves upwards.
//!
//! The idea is that of RadixAttention (Zheng et al., 2024, "SGLang", arXiv:2312.07104).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Included, Unbounded};

use slab::Slab;

/// Whose prefixes these are: they are never shared with another tenant.
pub type Tenant = u64;

/// The tokens of a page; fewer than a page holds only in a leaf.
type Block = Box<[u32]>;
type Children = BTreeMap<Block, usize>;

/// Pages by their tokens.
#[derive(Debug)]
pub(crate) struct Tree<P> {
    /// Tokens of a full page.
    page: usize,
    nodes: Slab<Node<P>>,
    roots: HashMap<Tenant, Children>,
    /// Leaves that nobody stands on or below, by their last use.
    idle: BTreeSet<(u64, usize)>,
    clock: u64,
}

#[derive(Debug)]
struct Node<P> {
    page: P,
    block: Block,
    parent: Result<usize, Tenant>,
    children: Children,
    /// Paths that lead here or further.
    users: usize,
    used: u64,
}

/// Where a sequence stands: the nodes of its full pages from the root on. Every path that was found has to be
/// released.
#[derive(Debug, Default)]
pub(crate) struct Path {
    tenant: Tenant,
    nodes: Vec<usize>,
}

impl Path {
    /// Number of full pages that the sequence shares with the tree.
    pub(crate) fn pages(&self) -> usize {
        self.nodes.len()
    }
}

/// What the tree has of a sequence.
#[derive(Debug)]
pub(crate) struct Found<P> {
    pub(crate) path: Path,
    /// The full pages of `path`.
    pub(crate) pages: Vec<P>,
    /// A page whose first tokens are those that follow, and how many.
    pub(crate) part: Option<(P, usize)>,
}

impl<P: Clone> Tree<P> {
    /// `page` is the number of tokens that a page holds.
    pub(crate) fn new(page: usize) -> Self {
        let (nodes, roots, idle) = (Slab::new(), HashMap::new(), BTreeSet::new());
        Self { page, nodes, roots, idle, clock: 0 }
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.nodes.len()
    }

    /// The longest prefix of `tokens` that there are pages for, pinned.
    pub(crate) fn find(&mut self, tenant: Tenant, tokens: &[u32]) -> Found<P> {
        let mut path = Path { tenant, nodes: Vec::new() };
        let mut pages = Vec::new();
        let mut blocks = tokens.chunks_exact(self.page);
        let mut rest = tokens;
        while let Some(&node) = blocks.next().and_then(|block| self.children(&path)?.get(block)) {
            self.pin(node);
            path.nodes.push(node);
            pages.extend(self.nodes.get(node).map(|node| node.page.clone()));
            rest = &rest[self.page..];
        }
        let part = self.children(&path).and_then(|children| self.nearest(children, rest));
        Found { path, pages, part }
    }

    /// The page that shares the most tokens with `rest`: one of the neighbours in the order of blocks.
    fn nearest(&self, children: &Children, rest: &[u32]) -> Option<(P, usize)> {
        let before = children.range::<[u32], _>((Unbounded, Included(rest))).next_back();
        let after = children.range::<[u32], _>((Included(rest), Unbounded)).next();
        let common = |block: &[u32]| block.iter().zip(rest).take_while(|(a, b)| a == b).count();
        let near = before.into_iter().chain(after).map(|(block, &node)| (common(block), node));
        let (count, node) = near.max_by_key(|(count, _)| *count)?;
        (count > 0).then(|| Some((self.nodes.get(node)?.page.clone(), count)))?
    }

    /// Adds the page of the tokens that follow on `path`, and steps onto it. If there is one already, that is
    /// returned, to be used instead.
    pub(crate) fn grow(&mut self, path: &mut Path, block: &[u32], page: P) -> Option<P> {
        let known = self.children(path).and_then(|children| children.get(block)).copied();
        let node = match known {
            Some(node) => node,
            None => self.insert(path, block, page),
        };
        self.pin(node);
        path.nodes.push(node);
        known.and_then(|node| Some(self.nodes.get(node)?.page.clone()))
    }

    fn insert(&mut self, path: &Path, block: &[u32], page: P) -> usize {
        let parent = path.nodes.last().copied().ok_or(path.tenant);
        let block: Block = block.into();
        let node = Node { page, block: block.clone(), parent, children: Children::new(), users: 0, used: 0 };
        let node = self.nodes.insert(node);
        match parent {
            Err(tenant) => self.roots.entry(tenant).or_default().insert(block, node),
            // Somebody stands on the parent, so it is not idle.
            Ok(parent) => self.nodes.get_mut(parent).and_then(|parent| parent.children.insert(block, node)),
        };
        node
    }

    /// Steps back to the first `pages` pages of `path`.
    pub(crate) fn retreat(&mut self, path: &mut Path, pages: usize) {
        self.clock += 1;
        while path.nodes.len() > pages {
            if let Some(node) = path.nodes.pop() {
                self.unpin(node);
            }
        }
    }

    /// Lets go of a path whose sequence ends. `tail` is its last page, where that is not full, with its tokens.
    pub(crate) fn release(&mut self, mut path: Path, tail: Option<(&[u32], P)>) {
        if let Some((block, page)) = tail {
            let nearest = self.children(&path).and_then(|children| self.nearest(children, block));
            // Where a page begins with these tokens, another one would be of no use.
            if nearest.is_none_or(|(_, count)| count < block.len()) {
                self.grow(&mut path, block, page);
            }
        }
        self.retreat(&mut path, 0);
    }

    /// Frees the page that was used the longest ago; false if somebody stands on all of them.
    pub(crate) fn evict(&mut self) -> bool {
        let Some((_, id)) = self.idle.pop_first() else { return false };
        let Some(node) = self.nodes.try_remove(id) else { return false };
        match node.parent {
            Err(tenant) => {
                if let Some(root) = self.roots.get_mut(&tenant) {
                    root.remove(&node.block);
                    if root.is_empty() {
                        self.roots.remove(&tenant);
                    }
                }
            }
            Ok(parent) => {
                if let Some(node_above) = self.nodes.get_mut(parent) {
                    node_above.children.remove(&node.block);
                }
                self.idle_if_unused(parent);
            }
        }
        true
    }

    fn children(&self, path: &Path) -> Option<&Children> {
        match path.nodes.last() {
            Some(&node) => self.nodes.get(node).map(|node| &node.children),
            None => self.roots.get(&path.tenant),
        }
    }

    fn pin(&mut self, id: usize) {
        if let Some(node) = self.nodes.get_mut(id) {
            if node.users == 0 {
                self.idle.remove(&(node.used, id));
            }
            node.users += 1;
        }
    }

    fn unpin(&mut self, id: usize) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.users -= 1;
            node.used = self.clock;
        }
        self.idle_if_unused(id);
    }

    fn idle_if_unused(&mut self, id: usize) {
        if let Some(node) = self.nodes.get(id).filter(|node| node.users == 0 && node.children.is_empty()) {
            self.idle.insert((node.used, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4;

    /// A page that knows what it was computed from.
    type Page = Vec<u32>;

    /// Runs a sequence through the tree and returns how many of its tokens it found there.
    fn run(tree: &mut Tree<Page>, tenant: Tenant, tokens: &[u32]) -> usize {
        let Found { mut path, pages, part } = tree.find(tenant, tokens);
        for (index, page) in pages.iter().enumerate() {
            assert_eq!(page, &tokens[..(index + 1) * PAGE], "the page belongs to these tokens");
        }
        let full = pages.len() * PAGE;
        let found = full + part.as_ref().map_or(0, |(_, count)| *count);
        if let Some((page, count)) = part {
            assert_eq!(page[..full + count], tokens[..found]);
        }
        while (path.pages() + 1) * PAGE <= tokens.len() {
            let (start, end) = (path.pages() * PAGE, (path.pages() + 1) * PAGE);
            tree.grow(&mut path, &tokens[start..end], tokens[..end].to_vec());
        }
        let rest = &tokens[path.pages() * PAGE..];
        tree.release(path, (!rest.is_empty()).then(|| (rest, tokens.to_vec())));
        found
    }

    #[test]
    fn prefixes_are_found_down_to_the_token() {
        let mut tree = Tree::new(PAGE);
        for (tenant, tokens, found, pages) in [
            (0, &[1, 2, 3, 4, 5, 6][..], 0, 2),
            // All of it, with the page that was not full.
            (0, &[1, 2, 3, 4, 5, 6], 6, 2),
            (0, &[1, 2, 3, 4, 5, 6, 7, 8, 9], 6, 4),
            // In the middle of a page.
            (0, &[1, 2, 9], 2, 5),
            (0, &[9, 9], 0, 6),
            // Another tenant's are not.
            (1, &[1, 2, 3, 4, 5, 6], 0, 8),
        ] {
            assert_eq!((run(&mut tree, tenant, tokens), tree.pages()), (found, pages), "{tenant} {tokens:?}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_parents_last() {
        let mut tree = Tree::new(PAGE);
        run(&mut tree, 0, &[1, 1, 1, 1, 2, 2, 2, 2]);
        run(&mut tree, 0, &[3, 3, 3, 3]);
        run(&mut tree, 0, &[1, 1, 1, 1]);
        assert!(tree.evict(), "2 2 2 2");
        assert!(tree.evict(), "3 3 3 3");
        assert_eq!(run(&mut tree, 0, &[3, 3, 3, 3]), 0);
        assert_eq!(run(&mut tree, 0, &[1, 1, 1, 1, 2, 2, 2, 2]), 4);
    }

    #[test]
    fn what_somebody_stands_on_stays() {
        let mut tree = Tree::new(PAGE);
        run(&mut tree, 0, &[1, 1, 1, 1, 2, 2, 2, 2]);
        let mut found = tree.find(0, &[1, 1, 1, 1, 2, 2, 2, 2]);
        assert!(!tree.evict());
        tree.retreat(&mut found.path, 1);
        assert!(tree.evict());
        assert!(!tree.evict());
        tree.release(found.path, None);
        assert!(tree.evict());
        assert_eq!((tree.pages(), tree.roots.len(), tree.idle.len()), (0, 0, 0));
    }
}
