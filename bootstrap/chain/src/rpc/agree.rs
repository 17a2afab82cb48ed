//! Several nodes that have to say the same before anything is decided on it.
//!
//! Always true: what is returned was said by as many nodes as must agree; two answers that differ are never settled by taking one of them.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::node::{Node, cut};
use crate::error::ChainError;

/// The nodes of one chain.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    all: Vec<Node>,
    agree: usize,
}

impl Nodes {
    /// At least one node; of two or more, at least `agree` decide.
    pub(crate) fn new(all: Vec<Node>, agree: usize) -> Self {
        let agree = agree.clamp(1, all.len().max(1));
        Self { all, agree }
    }

    /// Every node, those that answered lately first.
    fn in_order(&self) -> Vec<Node> {
        let (late, good): (Vec<Node>, Vec<Node>) = self.all.iter().cloned().partition(Node::is_shunned);
        good.into_iter().chain(late).collect()
    }

    /// Every node with its answer, asked at once.
    pub(crate) async fn every<T, F, A>(&self, ask: F) -> Vec<(&Node, Result<T, ChainError>)>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let answers = join_all(self.all.iter().cloned().map(ask)).await;
        self.all.iter().zip(answers).collect()
    }

    /// What as many nodes as must agree say alike. As few as possible are asked; the others only when one of these fails or differs.
    pub(crate) async fn agreed<T, F, A>(&self, what: &'static str, ask: F) -> Result<T, ChainError>
    where
        T: PartialEq + Debug,
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let put = |node: Node| {
            let name = node.name().to_owned();
            let answer = ask(node);
            async move { (name, answer.await) }
        };
        let mut left = self.in_order().into_iter();
        let mut asked: FuturesUnordered<_> = left.by_ref().take(self.agree).map(&put).collect();
        let mut answers: Vec<(T, Vec<String>)> = Vec::new();
        let mut first = None;
        while let Some((name, answer)) = asked.next().await {
            match answer {
                Ok(answer) => {
                    let known = answers.iter().position(|(other, _)| *other == answer);
                    let place = known.unwrap_or_else(|| {
                        answers.push((answer, Vec::new()));
                        answers.len() - 1
                    });
                    answers[place].1.push(name);
                    if answers[place].1.len() >= self.agree {
                        return Ok(answers.swap_remove(place).0);
                    }
                    if known.is_some() || answers.len() == 1 {
                        continue;
                    }
                }
                Err(error) if self.all.len() == 1 => return Err(error),
                Err(error) => first = Some(first.unwrap_or(error)),
            }
            asked.extend(left.by_ref().take(1).map(&put));
        }
        Err(self.verdict(what, &answers, first))
    }

    /// Why too few said the same.
    fn verdict<T: Debug>(&self, what: &'static str, answers: &[(T, Vec<String>)], first: Option<ChainError>) -> ChainError {
        if let [(one_says, one), (other_says, other), ..] = answers {
            return ChainError::Disagree {
                what,
                one: one.join(", "),
                one_says: cut(&format!("{one_says:?}")),
                other: other.join(", "),
                other_says: cut(&format!("{other_says:?}")),
            };
        }
        let got = answers.first().map_or(0, |(_, names)| names.len());
        let first = first.unwrap_or_else(no_node);
        ChainError::TooFewAnswers { what, needed: self.agree, got, first: Box::new(first) }
    }

    /// The first answers of as many nodes as must agree, alike or not.
    pub(crate) async fn enough<T, F, A>(&self, what: &'static str, ask: F) -> Result<Vec<T>, ChainError>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let mut left = self.in_order().into_iter();
        let mut asked: FuturesUnordered<_> = left.by_ref().take(self.agree).map(&ask).collect();
        let (mut answers, mut first) = (Vec::new(), None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) if self.all.len() == 1 => return Err(error),
                Err(error) => {
                    first = Some(first.unwrap_or(error));
                    asked.extend(left.by_ref().take(1).map(&ask));
                }
            }
            if answers.len() >= self.agree {
                return Ok(answers);
            }
        }
        let first = first.unwrap_or_else(no_node);
        Err(ChainError::TooFewAnswers { what, needed: self.agree, got: answers.len(), first: Box::new(first) })
    }

    /// The first answer of any node, for what decides nothing.
    pub(crate) async fn any<T, F, A>(&self, ask: F) -> Result<T, ChainError>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let mut first = None;
        for node in self.in_order() {
            match ask(node).await {
                Ok(answer) => return Ok(answer),
                Err(error) => first = Some(first.unwrap_or(error)),
            }
        }
        Err(first.unwrap_or_else(no_node))
    }

    /// The first that any node finds; nothing when as many nodes as must agree answer that they have none, or all that answer do.
    pub(crate) async fn find<T, F, A>(&self, ask: F) -> Result<Option<T>, ChainError>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<Option<T>, ChainError>>,
    {
        let mut left = self.in_order().into_iter();
        let mut asked: FuturesUnordered<_> = left.by_ref().take(self.agree).map(&ask).collect();
        let (mut without, mut first) = (0, None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => without += 1,
                Err(error) => {
                    first = Some(first.unwrap_or(error));
                    asked.extend(left.by_ref().take(1).map(&ask));
                }
            }
            if without >= self.agree {
                break;
            }
        }
        if without > 0 { Ok(None) } else { Err(first.unwrap_or_else(no_node)) }
    }

    /// Tells every node at once. When one of them is content, the others have `grace` left.
    pub(crate) async fn tell_all<T, F, A>(&self, grace: Duration, content: impl Fn(&T) -> bool, tell: F) -> Vec<Result<T, ChainError>>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let mut told: FuturesUnordered<_> = self.all.iter().cloned().map(&tell).collect();
        let mut answers = Vec::new();
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                None => told.next().await,
                Some(until) => timeout_at(until, told.next()).await.unwrap_or(None),
            };
            let Some(answer) = next else { return answers };
            if until.is_none() && answer.as_ref().is_ok_and(&content) {
                until = Some(Instant::now() + grace);
            }
            answers.push(answer);
        }
    }

    /// What every node that answers says, asked at once; an error when fewer answer than must agree.
    pub(crate) async fn each<T, F, A>(&self, what: &'static str, ask: F) -> Result<Vec<T>, ChainError>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<T, ChainError>>,
    {
        let asked: FuturesUnordered<_> = self.all.iter().cloned().map(ask).collect();
        let (mut answers, mut first) = (Vec::new(), None);
        for answer in asked.collect::<Vec<_>>().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) if self.all.len() == 1 => return Err(error),
                Err(error) => first = Some(first.unwrap_or(error)),
            }
        }
        if answers.len() >= self.agree {
            return Ok(answers);
        }
        Err(ChainError::TooFewAnswers { what, needed: self.agree, got: answers.len(), first: Box::new(first.unwrap_or_else(no_node)) })
    }
}

fn no_node() -> ChainError {
    ChainError::Config("no node of the chain is known; give one with --rpc".to_owned())
}
