"""One file per stage of training: plain generators that hand out a report per step."""
