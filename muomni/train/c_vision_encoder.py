"""Stage C: the vision encoder learns to see what words name, contrastively (CLIP, Radford et al., 2021).

The text tower is the frozen Thinker of stage A. These are matched with text: the whole picture, its CLS, with its
caption among the captions of the batch; every object, all patches under its box together, with its name among all
names (as RegionCLIP does, Zhong et al., 2022), and what no box covers with the background's colour, which few captions
tell; every single patch with the name or colour of what covers it, since a question about a scene asks for what is
where.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from muomni.data.picture_stream import KeptPictures, PictureStream, first_pictures
from muomni.data.pictures import Picture, box_weights, moved, rest_weights
from muomni.data.recording_stream import too_large
from muomni.errors import UserError
from muomni.layers import Whiten
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.loop import TrainConfig
from muomni.train.shown import save_picture
from muomni.train.text_tower import phrase, text_states
from muomni.vision_encoder import VisionEncoder, VisionEncoderConfig


class VisionStageConfig(TrainConfig):
    """Section ``c_vision_encoder``."""

    embedding: int = Field(ge=8, le=2048, description="width of the space that pictures and texts are compared in")
    shift: int = Field(ge=0, le=64, description="pixels that a training picture is moved at most")
    colour: float = Field(ge=0, lt=1, description="how far brightness, contrast and colours vary in training")
    region_weight: float = Field(ge=0, description="weight of objects' and backgrounds' losses beside the pictures'")
    patch_weight: float = Field(ge=0, description="weight of single patches' losses beside the pictures'")
    valid_pictures: int = Field(ge=1, description="pictures scored at each evaluation")
    # Files of parameters from before there was a choice go on being read.
    stream_over_mb: float = Field(
        default=4000.0, ge=0, description="megabytes of training shards over which they are read as needed, not kept"
    )


class ContrastiveHeads(nn.Module):
    """Training-only: CLS, region and text states to unit vectors of one space, and the temperatures."""

    def __init__(self, vision_width: int, text_width: int, width: int) -> None:
        super().__init__()
        self.picture = nn.Linear(vision_width, width, bias=False)
        self.region = nn.Linear(vision_width, width, bias=False)
        # The Thinker's states of "a dog" and "a fox" differ little and in few directions; whitened they lie far apart.
        self.whiten = Whiten(text_width)
        self.text = nn.Sequential(nn.Linear(text_width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(torch.tensor([2.0, 2.0]))  # logarithms of 1 / temperature: pictures, regions

    def pictures(self, cls: Tensor) -> Tensor:
        """``[B, Dv]`` to unit vectors ``[B, E]``."""
        return F.normalize(self.picture(cls), dim=-1)

    def regions(self, patches: Tensor) -> Tensor:
        """Patches, alone or pooled, ``[..., Dv]`` to unit vectors ``[..., E]``."""
        return F.normalize(self.region(patches), dim=-1)

    def texts(self, states: Tensor) -> Tensor:
        """The Thinker's pooled states ``[N, Dt]`` to unit vectors ``[N, E]``."""
        return F.normalize(self.text(self.whiten(states)), dim=-1)


class VisionTask:
    """Pictures to texts."""

    best_by = ""

    def __init__(
        self,
        cfg: VisionStageConfig,
        model: VisionEncoderConfig,
        thinker: Thinker,
        tokenizer: Tokenizer,
        shards: str | Path,
        seed: int,
    ) -> None:
        self.cfg, self.checkpointing = cfg, cfg.checkpointing
        self.encoder = VisionEncoder(model)
        self.heads = ContrastiveHeads(model.d_model, thinker.cfg.d_model, cfg.embedding)
        self.modules = {"vision_encoder": self.encoder, "heads": self.heads}
        self.frozen = {"thinker": thinker}
        self.tokenizer = tokenizer
        streamed = too_large(shards, cfg.stream_over_mb)
        self.train = (PictureStream if streamed else KeptPictures)(shards, cfg.batch_size, seed)
        self.valid = first_pictures(shards, "valid", cfg.valid_pictures)
        some = self.train.at(0)
        size = some[0].pixels.shape[-1]
        if size != model.image_size:
            raise UserError(f"vision_encoder.image_size: {model.image_size}, but the pictures have {size} pixels")
        thinker.eval()
        self.names, self.backgrounds = self.train.words()
        labels = [phrase(name) for name in self.names] + [f"{phrase(b)} background" for b in self.backgrounds]
        self.label_states = text_states(thinker, tokenizer, labels)  # what a patch can be
        # Of a stream, those of the first batch: they stand for all where nothing is named.
        captions = sorted(self.train.captions() | {p.caption for p in [*(some if streamed else []), *self.valid]})
        self.caption_index = {caption: i for i, caption in enumerate(captions)}
        self.caption_states = text_states(thinker, tokenizer, captions)
        # Pictures of one's own may have captions only.
        self.heads.whiten.measure(self.label_states if labels else self.caption_states)

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Pictures with how to move and colour them (see `pixels`), their captions, and their objects."""
        size = self.cfg.batch_size
        batch = self.collate(self.train.at(self.cfg.number(step, micro)))
        if self.cfg.shift:
            moves = torch.randint(2 * self.cfg.shift + 1, (size, 2), generator=rng) - self.cfg.shift
            # The object goes the other way than the window.
            offset = -moves.flip(1).float() / batch["images"].shape[-1]  # [B, 2] x, y
            batch["boxes"] = (batch["boxes"] + offset[batch["owner"]].repeat(1, 2)).clamp(0, 1)
            batch["moves"] = moves
        batch["gain"] = 1 + self.cfg.colour * (2 * torch.rand(size, 3, 1, 1, generator=rng) - 1)
        batch["contrast"] = 1 + self.cfg.colour * (2 * torch.rand(size, 1, 1, 1, generator=rng) - 1)
        return batch

    def pixels(self, batch: dict[str, Tensor]) -> Tensor:
        """The pictures of a batch as the encoder takes them, ``[B, 3, S, S]`` from 0 to 1.

        Those of a training batch are moved and get their colours here, on the device: bytes are quicker to bring there.
        """
        images = batch["images"]
        if "moves" in batch:
            images = moved(images, batch["moves"])
        images = images.float() / 255
        if "gain" in batch:
            images = (((images - 0.5) * batch["contrast"] + 0.5) * batch["gain"]).clamp(0, 1)
        return images

    def said(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Numbers of captions ``[B]``, equal for equal ones, and the Thinker's states of them ``[B, Dt]``.

        What is not known beforehand is found out together: so it depends on the batch alone, not on those before it.
        """
        if all(caption in self.caption_index for caption in captions):
            numbers = torch.tensor([self.caption_index[caption] for caption in captions])
            return numbers, self.caption_states[numbers]
        own = {caption: i for i, caption in enumerate(sorted(set(captions)))}
        numbers = torch.tensor([own[caption] for caption in captions])
        return numbers, text_states(self.frozen["thinker"], self.tokenizer, list(own))[numbers]

    def collate(self, rows: Sequence[Picture]) -> dict[str, Tensor]:
        """Pictures, numbers of captions and backgrounds, boxes and names of objects.

        Returns:
            ``images`` ``[B, 3, S, S]`` uint8; ``captions`` and ``backgrounds`` ``[B]``, -100 for none; ``texts``
            ``[B, Dt]``, the Thinker's states of the captions; ``boxes`` ``[N, 4]``, ``names`` and ``owner`` ``[N]``.
        """
        number = {name: i for i, name in enumerate(self.names)}
        background = {name: i for i, name in enumerate(self.backgrounds)}
        objects = [(row, o) for row, p in enumerate(rows) for o in p.objects if o["name"] in number]
        captions, texts = self.said([p.caption for p in rows])
        return {
            "images": torch.stack([p.pixels for p in rows]),
            "captions": captions,
            "texts": texts,
            "backgrounds": torch.tensor([background.get(p.background or "", -100) for p in rows]),
            "boxes": torch.tensor([o["box"] for _, o in objects], dtype=torch.float32).reshape(-1, 4),
            "names": torch.tensor([number[o["name"]] for _, o in objects], dtype=torch.int64),
            "owner": torch.tensor([row for row, _ in objects], dtype=torch.int64),
        }

    def labels(self) -> Tensor:
        """Vectors of all names and then all backgrounds, ``[L, E]``."""
        return self.heads.texts(self.label_states.to(self.encoder.patch.weight.device))

    def scores(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Logits ``[..., L]`` of patches ``[..., Dv]``, alone or pooled."""
        return self.heads.regions(patches) @ labels.T * self.heads.scale[1].exp().clamp_max(100)

    def object_logits(self, patches: Tensor, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Every object, all patches under its box together, against every name, ``[N, names]``."""
        weights = box_weights(batch["boxes"], self.encoder.side).to(patches)
        pooled = torch.einsum("np,npd->nd", weights, patches[batch["owner"]])
        return self.scores(pooled, labels[: len(self.names)])

    def background_logits(self, patches: Tensor, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Every picture's background, all patches outside boxes together, against every colour, ``[B, colours]``."""
        weights = rest_weights(batch["boxes"], batch["owner"], len(patches), self.encoder.side).to(patches)
        pooled = torch.einsum("bp,bpd->bd", weights / weights.sum(1, keepdim=True), patches)
        return self.scores(pooled, labels[len(self.names) :])

    def patch_losses(self, patches: Tensor, batch: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every patch against all names and backgrounds, by how much of it each covers.

        Returns:
            The loss: of the patches under objects, each object counting the same, plus that of the patches outside,
            each counting the same; and the share of the objects' patches that are right.
        """
        log_probs = self.scores(patches, labels).float().log_softmax(-1)  # [B, P, L]
        device = log_probs.device
        weights = box_weights(batch["boxes"], self.encoder.side).to(device)  # [N, P]
        under = log_probs[batch["owner"]]  # [N, P, L]
        named = under.gather(2, batch["names"][:, None, None].expand(-1, under.shape[1], 1))[..., 0]
        loss = -(weights * named).sum() / max(1, len(named))
        right = (weights * (under.argmax(-1) == batch["names"][:, None])).sum() / max(1, len(named))
        rest = rest_weights(batch["boxes"], batch["owner"], len(patches), self.encoder.side).to(device)
        rest = rest * (batch["backgrounds"] >= 0)[:, None]
        colour = len(self.names) + batch["backgrounds"].clamp_min(0)
        named = log_probs.gather(2, colour[:, None, None].expand(-1, log_probs.shape[1], 1))[..., 0]
        return loss - (rest * named).sum() / rest.sum().clamp_min(1), right.detach()

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Symmetric contrastive loss of pictures and captions; cross-entropy of objects, backgrounds and patches."""
        cls, patches = self.encoder(self.pixels(batch), self.checkpointing)
        texts = self.heads.texts(batch["texts"])  # [B, E]
        logits = self.heads.pictures(cls) @ texts.T * self.heads.scale[0].exp().clamp_max(100)  # [B, B]
        # Equal captions of a batch are all right answers.
        same = (batch["captions"][:, None] == batch["captions"][None]).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        labels = self.labels()
        objects = self.object_logits(patches, batch, labels)
        # Pictures with captions only have no objects, and a batch of them nothing to name.
        region = F.cross_entropy(objects, batch["names"]) if len(objects) else objects.sum()
        right = (objects.argmax(1) == batch["names"]).float().mean() if len(objects) else objects.sum().detach()
        patch, patch_accuracy = self.patch_losses(patches, batch, labels) if self.names else (region, right)
        values: dict[str, float | Tensor] = {
            "picture_loss": loss.detach(),
            "object_loss": region.detach(),
            "object_accuracy": right,
            "patch_loss": patch.detach(),
            "patch_accuracy": patch_accuracy,
            "padding": 0.0,
        }
        if bool((batch["backgrounds"] >= 0).any()):
            background = F.cross_entropy(self.background_logits(patches, batch, labels), batch["backgrounds"])
            values["background_loss"] = background.detach()
            region = region + background
        return loss + self.cfg.region_weight * region + self.cfg.patch_weight * patch, values

    def score(self, rows: Sequence[Picture]) -> dict[str, float]:
        """Naming of single pictures by the CLS, of objects and backgrounds by their patches, retrieval among `rows`."""
        device = self.encoder.patch.weight.device
        labels = self.labels()
        names = labels[: len(self.names)]
        cls_all, right, seen = [], 0, 0
        singles: list[tuple[bool, bool | None]] = []  # right, in a style that training never had of it
        backgrounds, background_right = 0, 0
        for at in range(0, len(rows), 64):
            part = rows[at : at + 64]
            batch = {key: value.to(device) for key, value in self.collate(part).items()}
            cls, patches = self.encoder(self.pixels(batch))
            vectors = self.heads.pictures(cls)
            cls_all.append(vectors)
            guesses = self.object_logits(patches, batch, labels).argmax(1) if self.names else batch["names"]
            right += int((guesses == batch["names"]).sum())
            seen += len(guesses)
            if self.backgrounds:
                told = batch["backgrounds"] >= 0
                shades = self.background_logits(patches, batch, labels).argmax(1)
                background_right += int((shades == batch["backgrounds"]).sum())
                backgrounds += int(told.sum())
            for row, picture in enumerate(part):
                if picture.kind == "single" and picture.objects[0]["name"] in self.names:
                    thing, guess = picture.objects[0], self.names[int((vectors[row] @ names.T).argmax())]
                    singles.append((guess == thing["name"], thing.get("unseen")))
        vectors = torch.cat(cls_all)
        captions = sorted({p.caption for p in rows})
        place = {caption: i for i, caption in enumerate(captions)}
        wanted = torch.tensor([place[p.caption] for p in rows], device=device)
        states = self.caption_states[torch.tensor([self.caption_index[c] for c in captions])]
        similarity = vectors @ self.heads.texts(states.to(device)).T  # [pictures, captions]
        ranks = (similarity > similarity.gather(1, wanted[:, None])).sum(1)
        unseen = [one for one, is_unseen in singles if is_unseen]
        return {
            "naming": sum(one for one, _ in singles) / max(1, len(singles)),
            **({"naming_unseen_style": sum(unseen) / len(unseen)} if unseen else {}),
            "objects": right / max(1, seen),
            "backgrounds": background_right / max(1, backgrounds),
            "recall_1": float((ranks < 1).float().mean()),
            "recall_5": float((ranks < 5).float().mean()),
        }

    def evaluate(self) -> dict[str, float]:
        """Scores on unseen pictures."""
        return self.score(self.valid)

    def samples(self, step: int, folder: Path) -> None:
        """Some unseen pictures with the names that their objects get."""
        rows = self.valid[:8]
        device = self.encoder.patch.weight.device
        batch = {key: value.to(device) for key, value in self.collate(rows).items()}
        _, patches = self.encoder(self.pixels(batch))
        guesses = self.object_logits(patches, batch, self.labels()).argmax(1) if self.names else batch["names"]
        lines = []
        for row, picture in enumerate(rows):
            named = [self.names[int(g)] for g, owner in zip(guesses, batch["owner"], strict=True) if owner == row]
            lines.append(f"picture-{row}\t{picture.caption}\t{', '.join(named)}\n")
            save_picture(picture.pixels, folder / f"picture-{row}.png")
        (folder / "names.tsv").write_text("picture\tcaption\tobjects\n" + "".join(lines), encoding="utf-8")
