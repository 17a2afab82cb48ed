//! Every message that crosses the wire between two peers, with its limits.
//!
//! A session has one control stream: [`AgentFrame`] one way, [`ProviderFrame`] the other. A log, a file and the input of a tool have a stream each, opened
//! by a [`LogRequest`], [`FileRequest`] or [`InputRequest`]. Small questions are a [`Question`] and its [`Answer`]. On a stream each frame is a 32-bit big-endian length and that many encoded bytes.

use serde::{Deserialize, Serialize};

use crate::channel::ChannelId;
use crate::digest::Digest;
use crate::fault::Fault;
use crate::hash::Hash;
use crate::id::{ExecutionId, RequestId, SessionId};
use crate::job::Job;
use crate::money::Usdc;
use crate::offer::Offer;
use crate::peer::PeerId;
use crate::receipt::Receipt;
use crate::signing::{Address, PeerSignature, Signed};
use crate::terms::{SignedTerms, Terms};
use crate::time::Timestamp;
use crate::voucher::{SignedAllowance, SignedClose, SignedVoucher};

/// Largest frame on a control stream: a job with all its arguments, with room.
pub const CONTROL_FRAME_LIMIT: usize = 256 * 1024;
/// Largest frame on a log, file or input stream (file contents are raw bytes, not frames).
pub const STREAM_FRAME_LIMIT: usize = 128 * 1024;
/// Most bytes of output in one log frame.
pub const LOG_CHUNK_LIMIT: usize = 64 * 1024;
/// Most bytes of input in one frame.
pub const INPUT_CHUNK_LIMIT: usize = 64 * 1024;
/// Input that a provider takes for a tool before the tool reads: a small text in whole, whether or not the tool has started.
pub const INPUT_AHEAD_LIMIT: usize = 256 * 1024;
/// Largest question.
pub const QUESTION_LIMIT: usize = 256 * 1024;
/// Largest answer.
pub const ANSWER_LIMIT: usize = 1024 * 1024;
/// Most bytes of offers in one catalogue page; leaves room for the rest of the answer.
pub const CATALOGUE_PAGE_BYTES: usize = 512 * 1024;
/// Most entries in one listing of files.
pub const LISTING_LIMIT: usize = 1000;
/// Largest file of a tree that travels in one frame with its name.
pub const TREE_SMALL_LIMIT: usize = 64 * 1024;
/// Most files and folders of a tree in one request.
pub const TREE_ENTRIES_LIMIT: u64 = 100_000;
/// Most problems that are named for a tree; with the longest paths and texts they fit into one frame.
pub const TREE_PROBLEMS_LIMIT: usize = 24;

/// From the agent, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentFrame {
    /// Opens a session: terms signed by the agent.
    Propose(Box<Signed<Terms>>),
    /// Shows the reservation; again, with a higher ceiling, for a top-up.
    Present(SignedAllowance),
    /// Asks for a run.
    Run(Box<Signed<Job>>),
    /// Stops a run.
    Cancel(ExecutionId),
    /// Answers a receipt.
    Voucher(SignedVoucher),
    /// Ends the session.
    End,
    /// Picks a session up again, on a new stream.
    Resume {
        /// Which session.
        session: SessionId,
        /// Number of the newest receipt the agent holds.
        head: u64,
        /// Content id of that receipt.
        head_hash: Hash,
    },
    /// First on its stream: says that a session under terms that the provider countersigned is given up, and asks for its close.
    LetGo(Box<SignedTerms>),
}

/// From the provider, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderFrame {
    /// The provider's signature over the proposed terms.
    Accepted(PeerSignature),
    /// The proposal, the allowance, the resumption or the letting go is refused; nothing more follows.
    Refused(Fault),
    /// What happened.
    Receipt(Box<Signed<Receipt>>),
    /// A job was taken and waits for its turn.
    Waiting(ExecutionId),
    /// A job's tool was started.
    Started {
        /// Which job.
        execution: ExecutionId,
        /// The provider's clock.
        at: Timestamp,
    },
    /// A job is refused; it never runs and costs nothing.
    JobRefused {
        /// Which job.
        execution: ExecutionId,
        /// Why.
        fault: Fault,
    },
    /// The session is picked up; receipts after the agent's head follow.
    Resumed {
        /// Number of the newest receipt the provider holds.
        head: u64,
    },
    /// A voucher was refused; the session goes on with the older one.
    VoucherRefused(Fault),
    /// The session is over.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The payee's close, when nothing is owed.
        close: Option<SignedClose>,
    },
}

/// Why a session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// The agent ended it.
    Ended,
    /// Its time was over.
    Expired,
    /// The agent did not answer receipts.
    NotSigned,
    /// The agent was gone for too long.
    AgentGone,
    /// The provider's node stopped or restarted.
    ProviderStopped,
    /// One side broke the rules of the session.
    Dispute,
    /// It never opened.
    NotOpened,
    /// Settlement did not redeem what was promised, and the provider risks no more.
    Unredeemed,
}

impl CloseReason {
    /// Stable name for people and APIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::NotSigned => "not_signed",
            Self::AgentGone => "agent_gone",
            Self::ProviderStopped => "provider_stopped",
            Self::Dispute => "dispute",
            Self::NotOpened => "not_opened",
            Self::Unredeemed => "unredeemed",
        }
    }
}

/// Opens a log stream: output of one execution from a byte offset on, followed until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// The session.
    pub session: SessionId,
    /// The execution.
    pub execution: ExecutionId,
    /// Chunks before this sequence number are not sent.
    pub from: u64,
}

/// Which of a tool's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One frame of a log stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrame {
    /// Output, numbered from 0 over both streams.
    Chunk {
        /// Its number.
        sequence: u64,
        /// When it was read, on the provider's clock.
        at: Timestamp,
        /// Which stream.
        stream: OutputStream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Chunks in between are not kept any more.
    Gap {
        /// The next number that will come.
        next: u64,
    },
    /// Nothing more will come.
    End,
    /// The log cannot be given.
    Refused(Fault),
}

/// Opens an input stream: bytes for the standard input of one execution whose job asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// The session.
    pub session: SessionId,
    /// The execution.
    pub execution: ExecutionId,
}

/// One frame of an input stream, from the agent. The first one makes its stream the only one that counts for this execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputFrame {
    /// Bytes of the input.
    Bytes {
        /// Where in the whole input they stand; what was taken before is skipped.
        offset: u64,
        /// At most [`INPUT_CHUNK_LIMIT`].
        bytes: Vec<u8>,
    },
    /// The input ends.
    End {
        /// After so many bytes.
        offset: u64,
    },
}

/// The provider's answers on an input stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputAnswer {
    /// Where the input stands: first on each stream, and after each frame that was taken.
    Taken {
        /// Bytes taken for the tool, over all streams; it need not have read them.
        total: u64,
        /// Whether its end was taken too.
        ended: bool,
    },
    /// Nothing more is taken: the tool has ended or closed its input, or the session is over.
    Over {
        /// Bytes taken for the tool.
        total: u64,
        /// Whether the end was taken before.
        ended: bool,
    },
    /// The stream is refused, or a frame of it; nothing more follows.
    Refused(Fault),
}

/// Opens a file stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRequest {
    /// The session whose workspace it is about.
    pub session: SessionId,
    /// What to do.
    pub action: FileAction,
}

/// What to do with a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAction {
    /// Store a file: `length` raw bytes follow the provider's `Ready`.
    Upload {
        /// Path in the workspace.
        path: String,
        /// How many bytes follow.
        length: u64,
        /// Whether it may be executed.
        executable: bool,
        /// Zero, or how many bytes the provider holds of an upload to this path that broke off: it goes on there, and the file has `offset + length` bytes.
        offset: u64,
        /// Nothing is stored unless the whole file has this BLAKE3.
        expected: Option<Hash>,
    },
    /// Name the uploads that broke off and can go on.
    Unfinished,
    /// Fetch a file or a part of it: raw bytes follow the provider's `Ready`.
    Download {
        /// Path in the workspace.
        path: String,
        /// Bytes before this offset are not sent.
        offset: u64,
        /// No more bytes than this are sent.
        length: u64,
        /// Nothing is sent unless the file is still this one.
        version: Option<u64>,
    },
    /// Look at one file or folder.
    Stat {
        /// Path in the workspace.
        path: String,
        /// Whether the file's hash is wanted too: the provider reads all of it for that.
        hash: bool,
    },
    /// List files below a path.
    List {
        /// Path in the workspace, or empty for all.
        path: String,
        /// Only what comes after this path in the order of paths.
        after: Option<String>,
    },
    /// Remove a file or folder, and an upload to it that broke off.
    Remove {
        /// Path in the workspace.
        path: String,
    },
    /// Fetch everything below a folder: [`TreeFrame`]s follow the provider's `Ready`.
    Pack {
        /// Path in the workspace, or empty for all.
        path: String,
    },
    /// Store many files: [`TreeFrame`]s follow the provider's `Ready`.
    Unpack {
        /// The folder that they go to, or empty for the workspace itself.
        path: String,
    },
}

/// One step of a tree on its way, either way. Paths are relative to the folder that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeFrame {
    /// A folder.
    Folder {
        /// Its path.
        path: String,
        /// Last change of it.
        modified: Timestamp,
    },
    /// A file of at most [`TREE_SMALL_LIMIT`] bytes.
    Small {
        /// Its path.
        path: String,
        /// Whether it may be executed.
        executable: bool,
        /// Last change of it.
        modified: Timestamp,
        /// What is in it.
        bytes: Vec<u8>,
        /// BLAKE3 of it.
        hash: Hash,
    },
    /// A larger file: so many raw bytes follow, and then a [`TreeFrame::Sum`].
    Large {
        /// Its path.
        path: String,
        /// Whether it may be executed.
        executable: bool,
        /// Last change of it.
        modified: Timestamp,
        /// How many bytes follow.
        length: u64,
    },
    /// BLAKE3 of the raw bytes before.
    Sum(Hash),
    /// Nothing more follows.
    End,
    /// The tree cannot be given on.
    Refused(Fault),
}

/// Something in a tree that was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeProblem {
    /// Its path.
    pub path: String,
    /// Why.
    pub fault: Fault,
}

/// The provider's answers on a file stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAnswer {
    /// Raw bytes may follow now: the upload's, or `length` of the download.
    Ready {
        /// How many bytes follow.
        length: u64,
        /// Bytes of the whole file.
        size: u64,
        /// Which state of the file this is; another number after every change. Of an upload zero.
        version: u64,
    },
    /// The transfer is complete.
    Done {
        /// BLAKE3 of the raw bytes of this transfer.
        hash: Hash,
        /// How many bytes they were.
        length: u64,
        /// BLAKE3 of the whole file, when this side has seen all of it.
        whole: Option<Hash>,
    },
    /// What was looked at.
    Stat {
        /// The file or folder.
        entry: FileEntry,
        /// Which state of the file this is.
        version: u64,
        /// BLAKE3 of its content, if that was asked for and it is a file.
        hash: Option<Hash>,
    },
    /// Files, in the order of their paths.
    Listing {
        /// At most [`LISTING_LIMIT`].
        entries: Vec<FileEntry>,
        /// Whether there are more.
        more: bool,
    },
    /// Uploads that broke off.
    Unfinished(Vec<UnfinishedUpload>),
    /// A tree was stored, but for what had a problem.
    Unpacked {
        /// Files that were stored.
        files: u64,
        /// Folders that are there now.
        folders: u64,
        /// Bytes of the files.
        bytes: u64,
        /// What was not stored; at most [`TREE_PROBLEMS_LIMIT`].
        problems: Vec<TreeProblem>,
        /// How many more were not.
        more: u64,
    },
    /// Not done.
    Refused(Fault),
}

/// An upload that broke off and can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfinishedUpload {
    /// Path in the workspace that it is for.
    pub path: String,
    /// Bytes that the provider holds.
    pub held: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

/// One file or folder of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path in the workspace.
    pub path: String,
    /// Bytes; zero for a folder.
    pub size: u64,
    /// Whether it is a folder.
    pub folder: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// Last change, on the provider's clock.
    pub modified: Timestamp,
}

/// A small question to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// To a provider: your offer, now.
    Offer,
    /// To anyone: the offer that you hold of this provider.
    OfferOf(PeerId),
    /// To anyone: offers of providers after this one, in the order of their ids.
    Catalogue {
        /// The last provider of the page before.
        after: Option<PeerId>,
    },
    /// To anyone: the newest digest you hold of each provider after this one.
    Digests {
        /// The last provider of the page before.
        after: Option<PeerId>,
    },
    /// To settlement: reserve for these terms.
    Reserve {
        /// Made by the agent, so that asking twice reserves once.
        request: RequestId,
        /// Signed by both.
        terms: Box<SignedTerms>,
        /// Cumulative for the channel.
        ceiling: Usdc,
    },
    /// To settlement: redeem this.
    Claim(Box<Claim>),
    /// To settlement: what is this account worth?
    Balance(Address),
    /// To settlement: what does this channel hold?
    ChannelState(ChannelId),
    /// To settlement: what was earned at this payout address?
    Earnings(Address),
    /// To settlement: the payee gives this channel up, from which nothing was redeemed.
    Release {
        /// Signed by both.
        terms: Box<SignedTerms>,
        /// Of a total of zero, signed by the provider's claim key.
        close: SignedClose,
    },
}

/// Documents that redeem a channel: everything needed to check the claim without asking anyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Signed by both.
    pub terms: SignedTerms,
    /// Signed by settlement.
    pub allowance: SignedAllowance,
    /// Signed by the agent.
    pub voucher: SignedVoucher,
    /// The receipt that the voucher names, signed by the provider.
    pub receipt: Signed<Receipt>,
    /// Signed by the provider's claim key, when the session is over.
    pub close: Option<SignedClose>,
}

/// What settlement knows of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelState {
    /// Most that may be redeemed.
    pub ceiling: Usdc,
    /// Redeemed so far.
    pub redeemed: Usdc,
    /// Whether the reservation has ended.
    pub closed: bool,
}

/// What settlement knows of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Funds {
    /// All that was ever granted or deposited.
    pub funded: Usdc,
    /// Held for live channels and not redeemed.
    pub reserved: Usdc,
    /// Redeemed by providers.
    pub redeemed: Usdc,
    /// What can still be reserved.
    pub available: Usdc,
}

/// What settlement knows of a payout address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Earnings {
    /// The provider's share of all redemptions.
    pub earned: Usdc,
    /// Of it, in payouts that are made.
    pub settled: Usdc,
    /// Of it, waiting for a batch or payout.
    pub pending: Usdc,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Not answered.
    Refused(Fault),
    /// A provider's own offer, or one that is held of another; none: it sells nothing, or nothing is known.
    Offer(Option<Box<Signed<Offer>>>),
    /// A page of offers.
    Offers {
        /// In the order of provider ids.
        offers: Vec<Signed<Offer>>,
        /// Whether there are more.
        more: bool,
    },
    /// A page of digests.
    Digests {
        /// In the order of provider ids.
        digests: Vec<Signed<Digest>>,
        /// Whether there are more.
        more: bool,
    },
    /// The reservation.
    Allowance(SignedAllowance),
    /// A claim or a release was taken, now or earlier.
    Claimed(ChannelState),
    /// An account.
    Balance(Funds),
    /// A channel.
    ChannelState(ChannelState),
    /// A payout address.
    Earnings(Earnings),
}
