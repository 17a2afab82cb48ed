//! What a session would cost, and with whom it would be, without opening one.
//!
//! Always true: providers are ranked and checked as for an opening; nobody but the chosen provider and settlement is asked anything, and nothing is written, reserved or promised.

use std::sync::Arc;
use std::time::Duration;

use orien_protocol::frame::{Answer, Funds, Question};
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, Verified};

use crate::opening::{Choice, OpenError, OpenRequest, Standing, Standings, check_offer, is_passing};
use crate::sessions::Sessions;

/// How long settlement may take to say what the account has.
const FUNDS_LIMIT: Duration = Duration::from_secs(5);

/// What an opening would do.
#[derive(Clone, Debug)]
pub(crate) struct Quote {
    /// What the chosen provider offers now.
    pub(crate) offer: Arc<Verified<Offer>>,
    /// Why it is chosen.
    pub(crate) why: String,
    /// Who else fits, the best first.
    pub(crate) alternatives: Vec<Standing>,
    /// Who does not, and why.
    pub(crate) rejected: Vec<(PeerId, String)>,
    /// What the account has; none if settlement does not say.
    pub(crate) funds: Option<Funds>,
}

impl Sessions {
    /// Quotes a session for an account.
    pub(crate) async fn quote(&self, request: &OpenRequest, account: Address) -> Result<Quote, OpenError> {
        let (standings, rejected, is_auto) = match request.choice {
            Choice::Named(provider) => (vec![Standing::named(provider)], Vec::new(), false),
            Choice::Auto => {
                let Standings { wanted, rejected } = self.standings(request)?;
                (wanted, rejected, true)
            }
        };
        let mut last = OpenError::NoProvider { rejected: rejected.clone() };
        for (index, standing) in standings.iter().enumerate() {
            let fresh = self.directory.fresh_offer(&self.context, standing.provider).await.map_err(OpenError::from);
            match fresh.and_then(|offer| check_offer(request, &offer).map(|()| offer)) {
                Ok(offer) => {
                    let alternatives =
                        standings.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other.clone()).collect();
                    let funds = self.funds(account).await;
                    return Ok(Quote { offer, why: standing.why.clone(), alternatives, rejected, funds });
                }
                Err(error) if is_auto && is_passing(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn funds(&self, account: Address) -> Option<Funds> {
        let question = Question::Balance(account);
        match tokio::time::timeout(FUNDS_LIMIT, self.context.ask_settlement(&question)).await {
            Ok(Ok(Answer::Balance(funds))) => Some(funds),
            _ => None,
        }
    }
}
