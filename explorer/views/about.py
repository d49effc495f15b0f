"""## What you are looking at

A Vision Transformer cuts a picture into squares, turns each into a vector, a *token*, and lets the tokens
look at each other, layer after layer. **Attention** says who looks at whom: one table per head and layer,
each row summing to one. This page shows those tables for your picture, as the model computed them: in
float32, except that the first look at a large model runs in bf16 where the processor is made for it. The
self-check under the viewer then says how far that is from float32, which every map, the race, the lesson,
*Heads & layers* and all files use.

The squares are *patches*. In front of them stand *prefix tokens*, which belong to no patch: [CLS], from which
most models read the answer, and in some models *registers*, spare room. In every *head* of every *layer* each
token asks with its *query*, is found by its *key* and hands over its *value*. What all layers read from and
add to is the *residual stream*.

- **Explore** – point at a patch: every head of every layer answers at once. Step with the arrow keys, play
with the space bar, `?` shows all keys. *Intervene* hides patches and switches heads off.
- **How it works** – a lesson: one patch, followed from its pixels to the answer, with the true numbers, to be
presented and printed, too.
- **Why** – which patches the answer rests on, by every method worth knowing, and a race that tells which
  of them to believe.
- **Heads & layers** – figures of what each head does, with words that say how to read them.
- **Training** – the same picture through the snapshots of a training run, also while it is going on.
- **Compare** – two models, or two moments, on one picture; or two pictures in front of one model.

## Three things to keep in mind

1. Attention says where a head *looks*, not what it does with what it finds, and not what the answer rests on.
2. Every row sums to one, so a head with nothing to do must rest somewhere: in many large models on [CLS], a
register or a dull patch. How much this model gives to tokens that are no patch stands on *Heads & layers*.
3. A map that looks right is not thereby true. That is why there is a race.

## Your pictures

They stay on the machine that runs this page and are shown to nobody else. What was made of them is forgotten
when you close the tab, the uploaded file itself within the next hour or a little more. The page loads nothing
from anywhere else.

## Links and files

*Copy link* brings somebody else to the same page with the same model, example and size, to what is
pinned, and to the same class, moment and interventions. A picture of your own is in no link. `python -m
explorer` makes the same figures without a browser, and `from explorer import show` puts the viewer into a
notebook or one HTML file.
"""

from explorer.views.page import Page
from explorer.views.prose import words


def build(page: Page) -> None:
    words(__doc__, "vx-about")
