"""Recognising an adversarial training whose discriminator no longer has useful gradients for the network."""

_INTERVALS = 10  # of the journal, up to 50 steps each
_WON, _LOST = 0.05, 2.0  # of the loss of guessing


class CollapseWatch:
    """Warns once in a run if the discriminator's loss stays far from that of an undecided training.

    The measure is the loss as a fraction of `guessing`, that of a discriminator that tells nothing apart
    (`AdversarialLoss.guessing`), so it is the same for all kinds of loss. A fraction between 0.05 and 2, in one of ten
    consecutive intervals of the journal, is taken as sound; fluctuations are usual in any GAN, and at the start the
    discriminator often wins for a while.

    - Below 0.05 the discriminator has won: with the vanilla loss, it is 97 % sure and right about every logit. Its own
      gradients vanish, as they are proportional to its errors (with hinge, they are zero), and its scores no longer
      depend on how close the output is (Arjovsky and Bottou, Towards Principled Methods for Training GANs, 2017).
    - Above 2 its loss is twice that of guessing: it diverges, and its gradients mislead the network.

    `counts` is the progress so far, empty at the start of a run, and is updated: the consecutive intervals in which the
    discriminator has `won` and `lost`, and the number of `warnings`.
    """

    def __init__(self, guessing: float, counts: dict[str, int]) -> None:
        self._guessing = guessing
        self._counts = counts

    def warning(self, loss: float, real: float, generated: float) -> str | None:
        """Take the mean loss and scores of an interval. Return the warning if it is due, with what to try."""
        fraction = loss / self._guessing
        counts = self._counts
        won = counts["won"] = counts.get("won", 0) + 1 if fraction < _WON else 0
        lost = counts["lost"] = counts.get("lost", 0) + 1 if fraction > _LOST else 0
        if counts.get("warnings") or max(won, lost) < _INTERVALS:
            return None
        counts["warnings"] = 1
        found = (
            f"for {_INTERVALS} intervals of the journal: its loss is {loss:.3g}, that of guessing would be "
            f"{self._guessing:.3g}; scores: real {real:.3g}, generated {generated:.3g}"
        )
        if won:
            return (
                f"the discriminator has told real from generated images almost without error {found}. Its gradients no "
                "longer improve the network. Start a new run with a lower --discriminator-lr, or from weights trained "
                "longer without a discriminator (--init); check that outputs and HR do not differ by something "
                "trivial, e.g. in colour"
            )
        return (
            f"the discriminator has been worse than guessing {found}. It diverges. Start a new run with a lower "
            "--discriminator-lr, or a smaller weight of --gan"
        )
