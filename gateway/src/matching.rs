//! Which provider for a request: filters offers, ranks those that fit, and says why.
//!
//! Always true: the order depends on nothing but the request, the offers and what is passed in, and two equal candidates are ordered by their peer ids; every offer is either ranked with
//! a reason or rejected with one.
//!
//! It does not know the clock, the network, or what an offer's claims are worth.

use orien_protocol::money::Usdc;
use orien_protocol::offer::{Confinement, Offer};
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decimal::scaled;
use crate::experience::{Known, Trouble};

/// What a session is wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Something a tool is good for, or a tool's id.
    pub(crate) capability: Option<String>,
    /// Tools that must all be there.
    pub(crate) tools: Vec<String>,
    /// Highest price per minute of each wanted tool.
    pub(crate) max_price_per_minute: Option<Usdc>,
    /// Least share of the time in which it was up, hundredths of a percent, as its provider states it.
    pub(crate) min_uptime_permyriad: Option<u16>,
    /// Where the machine has to be, as its provider states it.
    pub(crate) region: Option<String>,
    /// How well tools have to be confined.
    pub(crate) min_confinement: Option<Confinement>,
    /// What comes first.
    pub(crate) order: Order,
}

/// What providers are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The lowest price per minute of what is wanted.
    #[default]
    Price,
    /// The fastest start that we measured.
    Start,
    /// The highest uptime that the provider states.
    Uptime,
    /// The smallest share of our own sessions that failed.
    Reputation,
}

impl Order {
    /// The names that callers use.
    pub(crate) const NAMES: [(&'static str, Self); 4] =
        [("price", Self::Price), ("start", Self::Start), ("uptime", Self::Uptime), ("reputation", Self::Reputation)];

    const fn superlative(self) -> &'static str {
        match self {
            Self::Price => "cheapest",
            Self::Start => "quickest to start",
            Self::Uptime => "most available",
            Self::Reputation => "most reliable",
        }
    }

    /// Less comes first.
    fn weight(self, price: Usdc, candidate: &Candidate<'_>) -> u64 {
        match self {
            Self::Price => price.micros(),
            Self::Start => candidate.known.start_ms.unwrap_or(u64::MAX),
            Self::Uptime => u64::from(u16::MAX - candidate.offer.record.uptime_permyriad),
            Self::Reputation => {
                // As if each had gone well once and failed once before: who was never tried stands between the good and the bad.
                let Known { completed, failed, .. } = candidate.known;
                let all = u128::from(completed).saturating_add(u128::from(failed)).saturating_add(2);
                u64::try_from(u128::from(failed).saturating_add(1).saturating_mul(1_000_000) / all).unwrap_or(u64::MAX)
            }
        }
    }
}

/// How well tools are confined, by its name.
pub(crate) fn confinement(name: &str) -> Option<Confinement> {
    let levels = [Confinement::S0, Confinement::S1, Confinement::S2, Confinement::S3];
    levels.into_iter().find(|level| name.strip_prefix('S') == Some(level.level().to_string().as_str()))
}

impl Wish {
    /// The wanted tools in words.
    fn subject(&self) -> String {
        match (&self.capability, self.tools.as_slice()) {
            (Some(capability), []) => capability.clone(),
            (Some(capability), tools) => format!("{capability} and {}", tools.join(", ")),
            (None, []) => "any tool".to_owned(),
            (None, tools) => tools.join(", "),
        }
    }
}

/// An offer, and what we know of its provider ourselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Checked and signed by its provider.
    pub(crate) offer: &'a Offer,
    /// Whether the provider has contradicted itself.
    pub(crate) equivocated: bool,
    /// What we lived through with it.
    pub(crate) known: Known,
}

/// An offer that fits.
#[derive(Clone, Debug)]
pub(crate) struct Ranked<'a> {
    /// The offer.
    pub(crate) offer: &'a Offer,
    /// Why it stands where it stands.
    pub(crate) why: String,
}

/// An offer that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected<'a> {
    /// The offer.
    pub(crate) offer: &'a Offer,
    /// What it lacks.
    pub(crate) why: String,
    /// Whether it is what is wanted, only not to be had now.
    pub(crate) fits: bool,
}

/// The offers that fit, best first, and the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking<'a> {
    /// Best first.
    pub(crate) ranked: Vec<Ranked<'a>>,
    /// In the order in which they came.
    pub(crate) rejected: Vec<Rejected<'a>>,
}

/// Sorts by what the wish says comes first, then by the provider's lowest price, then by measured response time, then by free capacity. Providers whose newest session here failed, or
/// that broke the rules, come after all others for a while: the one that left us a minute ago is not the one to go on with, however cheap.
pub(crate) fn rank<'a>(wish: &Wish, candidates: impl IntoIterator<Item = Candidate<'a>>, now: Timestamp) -> Ranking<'a> {
    let mut fitting = Vec::new();
    let mut ranking = Ranking::default();
    for candidate in candidates {
        match price_for(wish, candidate.offer, now).and_then(|price| available(&candidate).map(|()| price)) {
            Ok(price) => fitting.push((wish.order.weight(price, &candidate), price, candidate)),
            Err(lack) => ranking.rejected.push(Rejected { offer: candidate.offer, fits: matches!(lack, Lack::Now(_)), why: lack.into() }),
        }
    }
    fitting.sort_by_key(|(weight, price, c)| {
        let free = std::cmp::Reverse(c.offer.capacity.free);
        let known = c.known;
        (known.trouble.is_some(), *weight, *price, floor(c.offer), known.response_ms.unwrap_or(u64::MAX), free, c.offer.provider)
    });
    for (index, (_, _, candidate)) in fitting.iter().enumerate() {
        ranking.ranked.push(Ranked { offer: candidate.offer, why: reason(wish, &fitting, index) });
    }
    ranking
}

/// Why the provider at `index` stands there.
fn reason(wish: &Wish, fitting: &[(u64, Usdc, Candidate<'_>)], index: usize) -> String {
    let Some((weight, price, candidate)) = fitting.get(index) else { return String::new() };
    let (all, subject, superlative) = (fitting.len(), wish.subject(), wish.order.superlative());
    let is_sound = |c: &Candidate<'_>| c.known.trouble.is_none();
    let sound = fitting.iter().filter(|(_, _, c)| is_sound(c)).count();
    let equals = fitting.iter().filter(|(other, _, c)| other == weight && is_sound(c) == is_sound(candidate)).count();
    let of = if sound < all && is_sound(candidate) {
        format!("{all} (without {} in trouble)", all.saturating_sub(sound))
    } else {
        all.to_string()
    };
    let place = match index {
        _ if all == 1 => format!("the only provider that offers {subject}"),
        0 if equals > 1 => format!("one of the {equals} {superlative} of {of} that offer {subject}"),
        0 => format!("the {superlative} of {of} that offer {subject}"),
        index => format!("number {} of {all} that offer {subject}", index.saturating_add(1)),
    };
    let (offer, known) = (candidate.offer, candidate.known);
    let mut why = format!("{place}: {price} USDC per minute, {} of {} places free", offer.capacity.free, offer.capacity.sessions);
    if let Some(ms) = known.response_ms {
        why.push_str(&format!("; answered in {ms} ms"));
    }
    if let Some(ms) = known.start_ms {
        why.push_str(&format!("; starts a run in {ms} ms"));
    }
    if wish.order == Order::Uptime || wish.min_uptime_permyriad.is_some() {
        why.push_str(&format!("; up {} % of the time, it says", scaled(offer.record.uptime_permyriad.into(), 2)));
    }
    let sessions = known.completed.saturating_add(known.failed);
    if sessions > 0 {
        why.push_str(&format!("; {} of {sessions} sessions here went well", known.completed));
    }
    match known.trouble {
        Some(Trouble::Failed) => why.push_str("; after the others because its newest session here failed"),
        Some(Trouble::Disputed) => why.push_str("; after the others because it broke the rules of a session here"),
        None => {}
    }
    why
}

/// Why an offer is not one to choose.
#[derive(Debug)]
enum Lack {
    /// It is not what is wanted.
    Always(String),
    /// It is, but not now.
    Now(String),
}

impl From<Lack> for String {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Always(why) | Lack::Now(why) => why,
        }
    }
}

fn available(candidate: &Candidate<'_>) -> Result<(), Lack> {
    if candidate.equivocated {
        return Err(Lack::Now("it has signed two offers that contradict each other".to_owned()));
    }
    if candidate.offer.capacity.free == 0 {
        return Err(Lack::Now("all its places are taken".to_owned()));
    }
    Ok(())
}

/// The price per minute of what is wanted, or what the offer lacks.
fn price_for(wish: &Wish, offer: &Offer, now: Timestamp) -> Result<Usdc, Lack> {
    let lacks = |why: String| Err(Lack::Always(why));
    offer.freshness(now).map_err(|error| Lack::Always(error.to_string()))?;
    if offer.tools.is_empty() {
        return lacks("it offers no tool".to_owned());
    }
    let missing: Vec<&str> = wish.tools.iter().map(String::as_str).filter(|id| offer.tool(id).is_none()).collect();
    if !missing.is_empty() {
        return lacks(format!("it does not offer {}", missing.join(", ")));
    }
    let mut price = wish.tools.iter().filter_map(|id| offer.tool(id)).map(|tool| tool.price.per_minute).max();
    if let Some(capability) = &wish.capability {
        let able = offer.tools.iter().filter(|tool| tool.id == *capability || tool.capabilities.contains(capability));
        let cheapest =
            able.map(|tool| tool.price.per_minute).min().ok_or_else(|| Lack::Always(format!("no tool of it is good for {capability}")))?;
        price = price.max(Some(cheapest));
    }
    let price = price.unwrap_or_else(|| floor(offer));
    if let Some(max) = wish.max_price_per_minute.filter(|max| price > *max) {
        return lacks(format!("it asks {price} USDC per minute, more than {max}"));
    }
    let uptime = offer.record.uptime_permyriad;
    if let Some(min) = wish.min_uptime_permyriad.filter(|min| uptime < *min) {
        return lacks(format!("it was up {} % of the time, less than {} %", scaled(uptime.into(), 2), scaled(min.into(), 2)));
    }
    if let Some(region) = wish.region.as_ref().filter(|region| !offer.region.as_ref().is_some_and(|r| r.eq_ignore_ascii_case(region))) {
        return lacks(format!("it is not in {region}"));
    }
    if let Some(min) = wish.min_confinement.filter(|min| offer.confinement < *min) {
        return lacks(format!("it confines tools at S{}, less than S{}", offer.confinement.level(), min.level()));
    }
    Ok(price)
}

fn floor(offer: &Offer) -> Usdc {
    offer.tools.iter().map(|tool| tool.price.per_minute).min().unwrap_or(offer.price.per_minute)
}

#[cfg(test)]
mod tests {
    use orien_protocol::money::Price;
    use orien_protocol::offer::{Capacity, Hardware, Record, Tool};
    use orien_protocol::peer::PeerId;
    use orien_protocol::signing::Address;
    use orien_protocol::time::Millis;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn tool(id: &str, micros: u64, capabilities: &[&str]) -> Tool {
        Tool {
            id: id.to_owned(),
            name: id.to_owned(),
            description: String::new(),
            command: String::new(),
            parameters: Vec::new(),
            max_duration: Millis(1),
            cpu_millis: 1000,
            memory_bytes: 1,
            price: Price { per_minute: Usdc::from_micros(micros), call_fee: Usdc::ZERO },
            workspace_required: true,
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
        }
    }

    fn offer(id: u8, free: u16, tools: Vec<Tool>) -> Offer {
        Offer {
            provider: PeerId::from_bytes([id; 32]),
            version: 1,
            issued_at: NOW,
            expires_at: NOW.plus(Millis(60_000)),
            label: format!("p{id}"),
            name: String::new(),
            description: String::new(),
            ens_name: None,
            region: Some("eu".to_owned()),
            binding: orien_protocol::binding::SignedBinding {
                by_peer: orien_protocol::signing::Signed::join(
                    orien_protocol::binding::Binding {
                        peer: PeerId::from_bytes([id; 32]),
                        money_key: Address::from_bytes([6; 20]),
                        principal: Address::from_bytes([5; 20]),
                        network: "test".parse().unwrap(),
                    },
                    orien_protocol::signing::PeerSignature::from_bytes([0; 64]),
                ),
                by_money_key: orien_protocol::signing::MoneySignature::from_bytes(&[0; 65]),
            },
            price: Price::default(),
            minimum_charge: Usdc::ZERO,
            metering_interval: Millis(5_000),
            tools,
            confinement: Confinement::S0,
            hardware: Hardware::default(),
            capacity: Capacity { sessions: 4, free, runs_per_session: 1 },
            record: Record::default(),
            addresses: Vec::new(),
        }
    }

    fn of(offer: &Offer, known: Known) -> Candidate<'_> {
        Candidate { offer, equivocated: false, known }
    }

    fn order(wish: &Wish, offers: &[(Offer, Option<u64>)]) -> (Vec<u8>, Vec<String>) {
        let candidates = offers.iter().map(|(offer, response_ms)| of(offer, Known { response_ms: *response_ms, ..Known::default() }));
        let ranking = rank(wish, candidates, NOW);
        let ranked = ranking.ranked.iter().map(|r| r.offer.provider.as_bytes()[0]).collect();
        (ranked, ranking.rejected.iter().map(|r| r.why.clone()).collect())
    }

    fn build() -> Wish {
        Wish { tools: vec!["build".to_owned()], ..Wish::default() }
    }

    #[test]
    fn the_price_of_the_wanted_tool_decides_first_then_floor_response_and_free_places() {
        let offers = [
            (offer(1, 1, vec![tool("build", 100, &[])]), Some(9)),
            (offer(2, 1, vec![tool("build", 100, &[]), tool("cheap", 1, &[])]), None),
            (offer(3, 1, vec![tool("build", 100, &[])]), Some(5)),
            (offer(4, 3, vec![tool("build", 100, &[])]), Some(9)),
            (offer(5, 1, vec![tool("build", 90, &[])]), None),
            (offer(6, 1, vec![tool("build", 100, &[])]), Some(9)),
        ];
        assert_eq!(order(&build(), &offers).0, [5, 2, 3, 4, 1, 6]);
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_offers() {
        let mut offers: Vec<(Offer, Option<u64>)> = (1..=5).map(|id| (offer(id, 1, vec![tool("build", 100, &[])]), None)).collect();
        let forwards = order(&build(), &offers).0;
        offers.reverse();
        assert_eq!(order(&build(), &offers).0, forwards);
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_what_it_lacks() {
        let mut expired = offer(1, 1, vec![tool("build", 1, &[])]);
        expired.expires_at = NOW;
        let offers = [
            (expired, None),
            (offer(2, 0, vec![tool("build", 1, &[])]), None),
            (offer(3, 1, vec![tool("render", 1, &[])]), None),
            (offer(4, 1, vec![tool("build", 200, &[])]), None),
            (offer(5, 1, Vec::new()), None),
        ];
        let wish = Wish { max_price_per_minute: Some(Usdc::from_micros(100)), ..build() };
        let (ranked, rejected) = order(&wish, &offers);
        assert!(ranked.is_empty());
        for (why, part) in rejected.iter().zip(["expired", "places are taken", "does not offer build", "more than", "no tool"]) {
            assert!(why.contains(part), "{why}");
        }
        let elsewhere = Wish { region: Some("us".to_owned()), ..build() };
        assert!(order(&elsewhere, &[(offer(6, 1, vec![tool("build", 1, &[])]), None)]).1[0].contains("not in us"));
        let confined = Wish { min_confinement: Some(Confinement::S2), ..build() };
        assert!(order(&confined, &[(offer(6, 1, vec![tool("build", 1, &[])]), None)]).1[0].contains("S0, less than S2"));
    }

    #[test]
    fn a_capability_is_what_a_tool_says_it_is_good_for_or_its_id() {
        let offers = [
            (offer(1, 1, vec![tool("make", 5, &["compile"]), tool("gcc", 3, &["compile"])]), None),
            (offer(2, 1, vec![tool("compile", 4, &[])]), None),
            (offer(3, 1, vec![tool("render", 1, &[])]), None),
        ];
        let wish = Wish { capability: Some("compile".to_owned()), ..Wish::default() };
        assert_eq!(order(&wish, &offers).0, [1, 2]);
    }

    #[test]
    fn the_reason_says_how_many_were_compared_and_at_what_price() {
        let offers = [offer(1, 1, vec![tool("build", 100_000, &[])]), offer(2, 2, vec![tool("build", 250_000, &[])])];
        let known = Known { response_ms: Some(3), ..Known::default() };
        let ranking = rank(&build(), offers.iter().map(|offer| of(offer, known)), NOW);
        assert_eq!(ranking.ranked[0].why, "the cheapest of 2 that offer build: 0.1 USDC per minute, 1 of 4 places free; answered in 3 ms");
    }

    #[test]
    fn each_order_puts_its_own_best_first_and_who_was_never_tried_between_the_good_and_the_bad() {
        let mut offers: Vec<Offer> = (1..=3).map(|id| offer(id, 1, vec![tool("build", u64::from(id), &[])])).collect();
        let knows = [
            Known { completed: 0, failed: 2, start_ms: Some(9), ..Known::default() },
            Known { start_ms: None, ..Known::default() },
            Known { completed: 5, failed: 0, start_ms: Some(7), ..Known::default() },
        ];
        (offers[0].record.uptime_permyriad, offers[1].record.uptime_permyriad) = (9_000, 9_990);
        let first = |order| {
            let ranking = rank(&Wish { order, ..build() }, offers.iter().zip(knows).map(|(offer, known)| of(offer, known)), NOW);
            ranking.ranked.iter().map(|ranked| ranked.offer.provider.as_bytes()[0]).collect::<Vec<_>>()
        };
        assert_eq!(first(Order::Price), [1, 2, 3]);
        assert_eq!(first(Order::Start), [3, 1, 2]);
        assert_eq!(first(Order::Uptime), [2, 1, 3]);
        assert_eq!(first(Order::Reputation), [3, 2, 1]);
        let wish = Wish { min_uptime_permyriad: Some(9_950), ..build() };
        let ranking = rank(&wish, offers.iter().map(|offer| of(offer, Known::default())), NOW);
        assert_eq!((ranking.ranked.len(), ranking.rejected.len()), (1, 2));
        assert_eq!(ranking.rejected[0].why, "it was up 90 % of the time, less than 99.5 %");
    }

    #[test]
    fn who_failed_lately_comes_after_the_others_and_both_reasons_say_so() {
        let offers = [offer(1, 1, vec![tool("build", 1, &[])]), offer(2, 1, vec![tool("build", 9, &[])])];
        let failed = Known { trouble: Some(Trouble::Failed), failed: 1, completed: 2, ..Known::default() };
        let ranking = rank(&build(), [of(&offers[0], failed), of(&offers[1], Known::default())], NOW);
        let whys: Vec<&str> = ranking.ranked.iter().map(|ranked| ranked.why.as_str()).collect();
        assert!(whys[0].starts_with("the cheapest of 2 (without 1 in trouble) that offer build: 0.000009 USDC"), "{whys:?}");
        assert!(whys[1].ends_with("; 2 of 3 sessions here went well; after the others because its newest session here failed"), "{whys:?}");
    }

    #[test]
    fn what_is_wanted_but_not_to_be_had_now_is_told_apart_from_what_does_not_fit() {
        let offers = [offer(1, 0, vec![tool("build", 1, &[])]), offer(2, 1, vec![tool("build", 1, &[])]), offer(3, 1, Vec::new())];
        let twice = Candidate { equivocated: true, ..of(&offers[1], Known::default()) };
        let ranking = rank(&build(), [of(&offers[0], Known::default()), twice, of(&offers[2], Known::default())], NOW);
        assert_eq!(ranking.rejected.iter().map(|rejected| rejected.fits).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn confinement_has_four_names() {
        assert_eq!(confinement("S2"), Some(Confinement::S2));
        assert!(["S4", "2", "s2", "S02", ""].into_iter().all(|name| confinement(name).is_none()));
    }
}
