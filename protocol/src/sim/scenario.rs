//! What one world is like: who is in it, how bad the weather is, and who cheats.

use crate::credit::CreditPolicy;
use crate::money::{Price, Usdc};
use crate::sim::random::Random;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Streams keep their order; now and then one is cut and loses what was under way.
    Orderly,
    /// Frames are lost, repeated and overtaken without anybody noticing. Only safety can be asked for.
    Wild,
}

/// Who cheats, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adversary {
    /// An agent that runs tools and stops signing.
    StopsSigning,
    /// An agent that signs for less than the receipt says.
    SignsLess,
    /// An agent that signs vouchers of another session.
    SignsForAnother,
    /// An agent that says old things again.
    Replays,
    /// An agent that comes back from an old backup.
    ForksHistory,
    /// Agents that spend one account's escrow through many gateways at once.
    SharesOneEscrow,
    /// Throw-away agents: each pays its first interval and runs away.
    Sybils,
    /// A provider that reports more time than a tool took.
    OverReports,
    /// A provider that adds time to its receipts and charges it rightly, in a chain of its own.
    Inflates,
    /// A provider that charges more than the time it reports.
    Overcharges,
    /// A provider that leaves receipts out.
    SkipsReceipts,
    /// A provider that signs two receipts under one number.
    ForksReceipts,
    /// A provider that claims again, and with documents of other sessions.
    ClaimsTwice,
    /// A provider that claims when it is too late.
    ClaimsLate,
    /// A provider whose tools do nothing and take their time.
    WorksWithoutOutput,
    /// A provider that lets sessions open and then does nothing.
    BaitsOpenings,
    /// A provider that works on under an allowance which settlement forged for it.
    IgnoresBudget,
    /// An agent and a provider that close a channel early and redeem it later.
    FreesEarly,
    /// Settlement signs for escrow that is not there, for an agent that it knows.
    OverPromises,
    /// Settlement signs for another channel, another time or more than was asked.
    Redirects,
    /// Settlement redeems nothing.
    RefusesClaims,
    /// Settlement says that it redeemed what it did not.
    LiesAboutRedeemed,
}

impl Adversary {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::StopsSigning,
        Self::SignsLess,
        Self::SignsForAnother,
        Self::Replays,
        Self::ForksHistory,
        Self::SharesOneEscrow,
        Self::Sybils,
        Self::OverReports,
        Self::Inflates,
        Self::Overcharges,
        Self::SkipsReceipts,
        Self::ForksReceipts,
        Self::ClaimsTwice,
        Self::ClaimsLate,
        Self::WorksWithoutOutput,
        Self::BaitsOpenings,
        Self::IgnoresBudget,
        Self::FreesEarly,
        Self::OverPromises,
        Self::Redirects,
        Self::RefusesClaims,
        Self::LiesAboutRedeemed,
    ];

    /// Whether agents cheat.
    pub const fn is_agent(self) -> bool {
        matches!(
            self,
            Self::StopsSigning
                | Self::SignsLess
                | Self::SignsForAnother
                | Self::Replays
                | Self::ForksHistory
                | Self::SharesOneEscrow
                | Self::Sybils
                | Self::FreesEarly
                | Self::OverPromises
        )
    }

    /// Whether providers cheat.
    pub const fn is_provider(self) -> bool {
        matches!(
            self,
            Self::OverReports
                | Self::Inflates
                | Self::Overcharges
                | Self::SkipsReceipts
                | Self::ForksReceipts
                | Self::ClaimsTwice
                | Self::ClaimsLate
                | Self::WorksWithoutOutput
                | Self::BaitsOpenings
                | Self::IgnoresBudget
                | Self::FreesEarly
        )
    }

    /// Whether settlement cheats.
    pub const fn is_house(self) -> bool {
        matches!(self, Self::OverPromises | Self::Redirects | Self::RefusesClaims | Self::LiesAboutRedeemed)
    }
}

/// One world. Every field may be set by hand; [`Scenario::of_seed`] draws them all.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Decides every draw.
    pub seed: u64,
    /// Agents; each is a gateway of its own.
    pub agents: usize,
    /// Accounts that fund them, in turn.
    pub accounts: usize,
    /// Providers.
    pub providers: usize,
    /// Most sessions that are proposed in all.
    pub sessions: usize,
    /// How long things go wrong; then everybody gets time to finish.
    pub chaos_ms: u64,
    /// How messages travel meanwhile.
    pub weather: Weather,
    /// Chance of a crash before each effect, in a hundred thousand.
    pub crashes: u64,
    /// Whether operators set wall clocks while things go wrong. An agent that restarts just then cannot know how long it was away, and may dispute honest time.
    pub steps: bool,
    /// Who cheats.
    pub adversary: Option<Adversary>,
    /// What each account has.
    pub escrow: Usdc,
    /// Largest budget of a session.
    pub budget: Usdc,
    /// What providers risk.
    pub credit: CreditPolicy,
    /// The tool `work`; `call` is the same with a fee of 500 micro-USDC more.
    pub price: Price,
    /// Effective time between interim receipts.
    pub interval_ms: u64,
}

impl Scenario {
    /// The world of a seed: one in three has an adversary, all have crashes.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let adversary = (seed % 3 == 2).then(|| Adversary::ALL[usize::try_from(seed / 3 % 22).unwrap_or(0)]);
        Self::drawn(seed, adversary, &mut random)
    }

    /// A world with a given cheat, or none.
    pub fn with(seed: u64, adversary: Option<Adversary>) -> Self {
        Self::drawn(seed, adversary, &mut Random::new(seed ^ 0x5eed))
    }

    fn drawn(seed: u64, adversary: Option<Adversary>, random: &mut Random) -> Self {
        let per_minute = random.between(1, 200_000);
        let interval_ms = random.between(1_000, 6_000);
        let interval = per_minute * interval_ms / 60_000 + 1;
        let agents = 1 + random.index(3);
        let sybils = adversary == Some(Adversary::Sybils);
        let shared = adversary == Some(Adversary::SharesOneEscrow);
        let budget = interval * random.between(2, 40);
        Self {
            seed,
            agents: if sybils { 6 } else { agents },
            accounts: if sybils { 6 } else { 1 + random.index(agents) },
            providers: 1 + random.index(2),
            sessions: if sybils { 6 } else { 1 + random.index(4) },
            chaos_ms: random.between(10_000, 50_000),
            weather: if random.chance(250) { Weather::Wild } else { Weather::Orderly },
            crashes: random.between(100, 1_500),
            steps: random.chance(250),
            adversary,
            escrow: Usdc::from_micros(if shared {
                budget
            } else if adversary == Some(Adversary::OverPromises) {
                0
            } else {
                budget * random.between(1, 6)
            }),
            budget: Usdc::from_micros(budget),
            credit: CreditPolicy {
                cap: Usdc::from_micros(interval * random.between(1, 4) + 600),
                unredeemed_cap: Usdc::from_micros(interval * random.between(1, 20) + 600),
            },
            price: Price { per_minute: Usdc::from_micros(per_minute), call_fee: Usdc::ZERO },
            interval_ms,
        }
    }
}
