"""Photos: pixels <-> chunks of coded symbols (FORMAT.md, section "Photo").

A picture of any size is one latent grid. z of the whole picture is the first chunk; y is cut into tiles, a chunk each.
The transforms run tile by tile, fed with a halo of their neighbours, so there are no seams, nothing is coded twice and
the networks' memory follows the tile; y of the whole picture is kept, 4 bytes per pixel to encode and 2 to decode. Context
ends at a tile's border, so each tile is parsed alone. Parsing gives all symbols before any float network runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic import entropy
from laconic.entropy.blocks import end_of
from laconic.entropy.errors import BadFile, expect
from laconic.entropy.threads import each, stop_if_over
from laconic.media import photo_mixed, photo_slices
from laconic.media.photo_effort import Effort
from laconic.media.photo_fields import Fields
from laconic.media.photo_mixed import Mixed
from laconic.media.photo_slices import Slices
from laconic.media.tiles import LATENT, PER_Z, Grid, Window, z_window
from laconic.medium import Progress
from laconic.models import photo_search
from laconic.models.photo import N_PASSES, Photo
from laconic.models.photo_search import SYMBOL_MAX, pass_places
from laconic.models.precision import multiplies_bf16

Pixels = NDArray[np.uint8]
Symbols = NDArray[np.int16]
Payload = memoryview | bytes | Slices  # of a tile: its passes back to back, mixed y, or its slices
Payloads = Sequence[Payload | None]
T = TypeVar("T")
R = TypeVar("R")

HYPER_HALO = 4  # samples of y that z looks at beyond its own
SEEN = 2  # samples of y around a searched tile whose pixels are to stay near too


@dataclass(frozen=True)
class PhotoCoder:
    """Runs a photo network in one way: device and precision, "auto", "float32" or "bf16", of its float parts."""

    model: Photo
    device: str = "cpu"
    precision: str = "auto"
    threads: int | None = None

    def encode(
        self, pixels: Pixels, fields: Fields, effort: Effort | None = None, progress: Progress | None = None
    ) -> list[bytes]:
        """Encode uint8 [H, W, 3] to payloads: z, then y of each tile in rows from the top left.

        effort: to be spent on a search for better symbols; None is plain rounding. progress: is told of the search, as a
        share of the samples. A tile that is Mixed is mixed y.
        """
        y, z = self._found(pixels, fields, effort, progress)

        def code(tile: Window) -> bytes:
            found = self._tile_passes(y[(..., *tile.slices)], z, tile, fields)
            passes = [(numbers(symbols), indices.cpu().numpy()) for symbols, indices in found]
            plain = b"".join(entropy.encode(*one, self.model.tables, threads=self.threads) for one in passes)
            if not (effort and effort.mixes):
                return plain
            return min(plain, photo_mixed.encode(passes, self._tile_shape(tile), self.model.tables), key=len)

        return [self._encode_z(z, fields), *self._each(code, Grid(fields).tiles())]

    def encode_slices(
        self, pixels: Pixels, fields: Fields, effort: Effort | None = None, progress: Progress | None = None
    ) -> list[bytes]:
        """Encode as `encode` does, to the payloads of a progressive file: z, then a slice of every tile, then the next."""
        y, z = self._found(pixels, fields, effort, progress)

        def passes(tile: Window) -> photo_slices.Passes:
            found = self._tile_passes(y[(..., *tile.slices)], z, tile, fields)
            return [(numbers(symbols), indices.cpu().numpy()) for symbols, indices in found]

        tiles = self._each(passes, Grid(fields).tiles())
        n, channels = photo_slices.per_pass(tiles, self.model.tables), self.model.config.latent_channels
        payloads = self._each(lambda one: photo_slices.encode(one, channels, n, self.model.tables, self.threads), tiles)
        return [self._encode_z(z, fields), *chain.from_iterable(zip(*payloads, strict=True))]

    def encode_batch(self, pictures: list[tuple[Pixels, Fields]]) -> list[list[bytes]]:
        """Encode each picture as `encode` does; on a GPU the symbols of all are coded there, in one launch."""
        if not self.codes_on_gpu:
            return [self.encode(*picture) for picture in pictures]
        from laconic.entropy import rans_cuda

        parts: list[tuple[Tensor, Tensor]] = []
        counts: list[list[int]] = []  # by picture, the number of parts in each payload
        with torch.inference_mode():
            for pixels, fields in pictures:
                y, z = self._latents(pixels, fields)
                parts.append((z.flatten().short(), self._z_rows(fields, z.shape[1:])))
                counts.append([1])
                for tile in Grid(fields).tiles():
                    passes = list(self._tile_passes(y[(..., *tile.slices)], z, tile, fields))
                    parts += [(symbols.short(), indices) for symbols, indices in passes]
                    counts[-1].append(len(passes))
        symbols, indices = (torch.cat(column) for column in zip(*parts, strict=True))
        data, sizes = rans_cuda.encode_batch(symbols, indices, [len(s) for s, _ in parts], self.model.tables)
        file, lengths = data.cpu().numpy().tobytes(), iter(sizes.tolist())
        position, payloads = 0, []
        for picture in counts:
            payloads.append(list[bytes]())
            for n_parts in picture:
                n_bytes = sum(islice(lengths, n_parts))
                payloads[-1].append(file[position : position + n_bytes])
                position += n_bytes
        return payloads

    def parse(self, payloads: Payloads, fields: Fields, region: Window | None = None) -> Parsed:
        """Parse payloads to all symbols that the region (or all) needs. Integers only; raises BadFile on damage."""
        first, shape = z_payload(payloads), self._z_shape(fields)
        flat = entropy.decode(first, self._z_indices(fields, shape), self.model.tables, threads=self.threads)
        z = torch.from_numpy(flat.reshape(1, *shape).astype(np.float32)).to(self.device)
        found = self._needed(payloads, fields, region)
        symbols = self._each(lambda job: self._parse_tile(job[1], z, job[0], fields), found)
        return Parsed(z, dict(zip([tile for tile, _ in found], symbols, strict=True)))

    def parse_batch(self, files: Sequence[tuple[Payloads, Fields]]) -> list[Parsed]:
        """Parse each whole picture as `parse` does; on a GPU a pass of all tiles of all pictures is decoded in one launch."""
        alone = any(isinstance(payload, (list, Mixed)) for payloads, _ in files for payload in payloads)
        if not self.codes_on_gpu or alone:
            return [self.parse(*file) for file in files]
        with torch.inference_mode():
            firsts = [memoryview(z_payload(payloads)) for payloads, _ in files]
            shapes = [self._z_shape(fields) for _, fields in files]
            rows = [self._z_rows(fields, shape) for (_, fields), shape in zip(files, shapes, strict=True)]
            flat = self._decode_on_gpu(firsts, rows)
            parsed = [Parsed(z.float().reshape(1, *shape), {}) for z, shape in zip(flat, shapes, strict=True)]
            jobs = [
                (result, tile, self._tile_symbols(result.z, tile, fields), memoryview(payload))
                for result, (payloads, fields) in zip(parsed, files, strict=True)
                for tile, payload in self._needed(payloads, fields, None)
                if not isinstance(payload, list)
            ]
            indices = [next(passes) for _, _, passes, _ in jobs]
            rests = [payload for _, _, _, payload in jobs]
            for _ in range(N_PASSES):
                ends = [end_of(rest, 0, len(rows)) for rest, rows in zip(rests, indices, strict=True)]
                found = self._decode_on_gpu([rest[:end] for rest, end in zip(rests, ends, strict=True)], indices)
                rests = [rest[end:] for rest, end in zip(rests, ends, strict=True)]
                indices = [passes.send(symbols) for (_, _, passes, _), symbols in zip(jobs, found, strict=True)]
        for (result, tile, _, _), rest, symbols in zip(jobs, rests, indices, strict=True):
            expect(not rest, BadFile, "y chunk", f"{len(rest)} bytes more", "the end")
            result.y[tile] = symbols
        return parsed

    def decode(self, parsed: Parsed, fields: Fields, region: Window | None = None) -> Pixels:
        """Decode symbols to uint8 pixels of the region (or all). Tiles that were not parsed read as their mean."""
        grid = Grid(fields)
        region = region or grid.whole()
        out = np.empty((region.bottom - region.top, region.right - region.left, 3), np.uint8)
        y_hat: dict[Window, Tensor] = {}
        with torch.inference_mode():
            for tile in grid.tiles(grid.latents(region)):
                part = tile.scaled(LATENT).common(region)
                window = grid.latents(part).grown(self.model.config.synthesis_halo, grid.height, grid.width)
                y_hat = {other: y for other, y in y_hat.items() if other.bottom > window.top}
                picture = self._synthesis(self._y_hat(parsed, window, fields, y_hat), fields)
                out[part.within(region).slices] = to_pixels(picture[(..., *part.within(window.scaled(LATENT)).slices)])
        return out

    def coded(self, parsed: Parsed, fields: Fields) -> list[tuple[Symbols, NDArray[np.uint8]]]:
        """Return (symbols, table indices) in the order they are coded: z, then the passes of each tile."""
        found = [(numbers(parsed.z.flatten()), self._z_indices(fields, parsed.z.shape[1:]))]
        with torch.inference_mode():
            for tile, symbols in parsed.y.items():
                passes = self._tile_symbols(parsed.z, tile, fields)
                indices = next(passes)
                for where in pass_places(*symbols.shape, self.device):
                    own = symbols.flatten()[where]
                    found.append((numbers(own), indices.cpu().numpy()))
                    indices = passes.send(own)
        return found

    @property
    def codes_on_gpu(self) -> bool:
        return self.device == "cuda" and find_spec("triton") is not None

    def _found(
        self, pixels: Pixels, fields: Fields, effort: Effort | None, progress: Progress | None
    ) -> tuple[Tensor, Tensor]:
        """Return y, real, and z, rounded, of the whole picture, after the search that the effort pays for."""
        with torch.no_grad():
            y, z = self._latents(pixels, fields)
            if effort:
                self._search(y, z, pixels, fields, effort, progress)
        return y, z

    def _encode_z(self, z: Tensor, fields: Fields) -> bytes:
        rows = self._z_indices(fields, z.shape[1:])
        return entropy.encode(numbers(z.flatten()), rows, self.model.tables, threads=self.threads)

    def _latents(self, pixels: Pixels, fields: Fields) -> tuple[Tensor, Tensor]:
        """Return y, real, and z, rounded, of the whole picture."""
        grid = Grid(fields)
        y = self._analysis(pixels, fields, grid)
        return y, torch.cat([self._hyper_rows(y, window, grid) for window in grid.z_strips()], 2)

    def _search(
        self, y: Tensor, z: Tensor, pixels: Pixels, fields: Fields, effort: Effort, progress: Progress | None
    ) -> None:
        """Put into y what codes the picture better, tile by tile: each sees its neighbours as they are coded so far."""
        grid, halo = Grid(fields), self.model.config.synthesis_halo
        tiles, done = grid.tiles(), 0
        y_hat = y if len(tiles) == 1 else y.clone()
        for tile in tiles if len(tiles) > 1 else []:
            y_hat[(..., *tile.slices)] = self._rounded(y, z, tile, fields)

        def each_step() -> None:
            nonlocal done
            stop_if_over()
            done += 1
            if progress:
                progress(pixels.size * done // (len(tiles) * effort.iterations), pixels.size)

        for tile in tiles:
            outer = tile.grown(halo, grid.height, grid.width)
            seen = tile.grown(SEEN, grid.height, grid.width).scaled(LATENT).common(grid.whole())
            own, around, corner = y[(..., *tile.slices)], y_hat[(..., *outer.slices)], seen.within(outer.scaled(LATENT))
            job = photo_search.Tile(
                to_tensor(cut_padded(pixels, seen)).to(self.device),
                own,
                self._mean(z, tile, fields),
                self._rows(z, tile, fields),
                around,
                *(tile.top - outer.top, tile.left - outer.left),
                (corner.top, corner.left),
                fields.gray,
            )
            found = photo_search.searched(self.model, job, fields.quality, effort.tune, effort.iterations, each_step)
            y[(..., *tile.slices)] = y_hat[(..., *tile.slices)] = found

    def _rounded(self, y: Tensor, z: Tensor, tile: Window, fields: Fields) -> Tensor:
        """Return y_hat of a tile by plain rounding."""
        symbols = torch.empty(y.shape[1], tile.bottom - tile.top, tile.right - tile.left, device=self.device)
        places = pass_places(*symbols.shape, self.device)
        for where, (found, _) in zip(places, self._tile_passes(y[(..., *tile.slices)], z, tile, fields), strict=True):
            symbols.view(-1)[where] = found
        return self._decode_tile(symbols, z, tile, fields)

    def _tile_passes(self, y: Tensor, z: Tensor, tile: Window, fields: Fields) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield symbols (real, rounded) and table indices of the four passes: the tables of the next depend on its symbols."""
        mean, rows = self._mean(z, tile, fields), self._rows(z, tile, fields)
        symbols, y_hat = torch.zeros_like(mean), torch.zeros_like(mean)
        for n, where in enumerate(pass_places(*mean.shape[1:], self.device)):
            pass_mean = self.model.pass_mean(n, mean, y_hat).flatten()[where]
            indices = self._indices(n, rows, symbols, where)
            found = (y.flatten()[where] - pass_mean).round().clamp(-SYMBOL_MAX, SYMBOL_MAX)
            symbols.view(-1)[where] = found
            y_hat.view(-1)[where] = found + pass_mean
            yield found, indices

    def _tile_symbols(self, z: Tensor, tile: Window, fields: Fields) -> Generator[Tensor, Tensor]:
        """Yield the table indices of a pass and take its symbols (`send`), four times; then yield all symbols of the tile.

        They are int16 [M, h, w]. All is done by integers alone.
        """
        rows = self._rows(z, tile, fields)
        symbols = torch.zeros_like(rows)
        for n, where in enumerate(pass_places(*rows.shape[1:], self.device)):
            symbols.view(-1)[where] = (yield self._indices(n, rows, symbols, where)).to(symbols)
        yield symbols[0].short()

    def _parse_tile(self, payload: Payload, z: Tensor, tile: Window, fields: Fields) -> Tensor:
        passes = self._tile_symbols(z, tile, fields)
        if isinstance(payload, list):
            return photo_slices.decode(payload, passes, self.model.config.latent_channels, self.model.tables, self.threads)
        if isinstance(payload, Mixed):
            return photo_mixed.decode(payload, passes, self._tile_shape(tile), self.model.tables)
        rest = memoryview(payload)
        indices = next(passes)
        for _ in range(N_PASSES):
            found, rest = entropy.decode_next(
                rest, indices.cpu().numpy(), self.model.tables, threads=self.threads
            )
            indices = passes.send(torch.from_numpy(found))
        expect(not rest, BadFile, "y chunk", f"{len(rest)} bytes more", "the end")
        return indices

    def _tile_shape(self, tile: Window) -> tuple[int, int, int]:
        return self.model.config.latent_channels, tile.bottom - tile.top, tile.right - tile.left

    def _decode_on_gpu(self, payloads: list[memoryview], indices: list[Tensor]) -> tuple[Tensor, ...]:
        """Decode several streams, each with table indices of its own, in one launch."""
        from laconic.entropy import rans_cuda

        data = torch.from_numpy(np.frombuffer(bytearray(b"".join(payloads)), np.uint8)).to(self.device)
        sizes, lengths = [len(payload) for payload in payloads], [len(rows) for rows in indices]
        symbols = rans_cuda.decode_batch(data, sizes, torch.cat(indices), lengths, self.model.tables)
        return torch.split(symbols, lengths)

    def _decode_tile(self, symbols: Tensor | None, z: Tensor, tile: Window, fields: Fields) -> Tensor:
        """Return y_hat of a tile: its symbols on the means of the passes; where there are none, the hyper decoder's mean."""
        mean = self._mean(z, tile, fields)
        if symbols is None:
            return mean
        residual, y_hat = symbols.float()[None], torch.zeros_like(mean)
        for n, where in enumerate(pass_places(*symbols.shape, self.device)):
            pass_mean = self.model.pass_mean(n, mean, y_hat).flatten()[where]
            y_hat.view(-1)[where] = residual.view(-1)[where] + pass_mean
        return y_hat

    def _needed(self, payloads: Payloads, fields: Fields, region: Window | None) -> list[tuple[Window, Payload]]:
        """Return the tiles that a region (or all) needs and the file holds, with their payloads."""
        grid = Grid(fields)
        needed = grid.latents(region or grid.whole()).grown(self.model.config.synthesis_halo, grid.height, grid.width)
        return [
            (tile, payload)
            for tile, payload in zip(grid.tiles(), payloads[1:], strict=True)
            if payload is not None and not tile.common(needed).empty
        ]

    def _indices(self, n: int, rows: Tensor, symbols: Tensor, where: Tensor) -> Tensor:
        """Return the table indices, uint8, of the symbols of pass n, in their order."""
        return self.model.indices(self.model.pass_rows(n, rows, symbols).flatten()[where])

    def _analysis(self, pixels: Pixels, fields: Fields, grid: Grid) -> Tensor:
        y = torch.empty(1, self.model.config.latent_channels, grid.height, grid.width, device=self.device)
        quality = self._quality(fields)
        for tile in grid.tiles():
            outer = tile.grown(self.model.config.analysis_halo, grid.height, grid.width).scaled(LATENT)
            x = to_tensor(cut_padded(pixels, outer)).to(self.device, memory_format=torch.channels_last)
            with self._autocast():
                part = self.model.analysis(x, quality)
            top, left = tile.top - outer.top // LATENT, tile.left - outer.left // LATENT
            inner = Window(top, top + tile.bottom - tile.top, left, left + tile.right - tile.left)
            y[(..., *tile.slices)] = part[(..., *inner.slices)]
        return y

    def _hyper_rows(self, y: Tensor, strip: Window, grid: Grid) -> Tensor:
        own = strip.scaled(PER_Z)
        outer = own.grown(HYPER_HALO, grid.height, grid.width)
        z = self.model.hyper(y[(..., *outer.slices)])
        inner = strip.within(Window(outer.top // PER_Z, 0, outer.left // PER_Z, 0))
        return z[(..., *inner.slices)].round().clamp(-SYMBOL_MAX, SYMBOL_MAX)

    def _mean(self, z: Tensor, tile: Window, fields: Fields) -> Tensor:
        """Return the hyper decoder's mean of y in a tile."""
        outer, inner = z_window(tile, Grid(fields))
        return self.model.mean(z[(..., *outer.slices)])[(..., *inner.slices)].contiguous()

    def _rows(self, z: Tensor, tile: Window, fields: Fields) -> Tensor:
        """Return the hyper decoder's table rows of y in a tile, as `Photo.prior` has them."""
        outer, inner = z_window(tile, Grid(fields))
        return self.model.prior(z[(..., *outer.slices)], fields.quality)[(..., *inner.slices)].contiguous()

    def _y_hat(self, parsed: Parsed, window: Window, fields: Fields, known: dict[Window, Tensor]) -> Tensor:
        """Return y_hat in a window of the grid; tiles that were not yet decoded are put into `known`."""
        shape = self.model.config.latent_channels, window.bottom - window.top, window.right - window.left
        y = torch.empty(1, *shape, device=self.device, memory_format=torch.channels_last)
        for tile in Grid(fields).tiles(window):
            part = tile.common(window)
            if tile not in known:
                known[tile] = self._decode_tile(parsed.y.get(tile), parsed.z, tile, fields)
            y[(..., *part.within(window).slices)] = known[tile][(..., *part.within(tile).slices)]
        return y

    def _synthesis(self, y: Tensor, fields: Fields) -> Tensor:
        with self._autocast():
            return self.model.synthesis(y, self._quality(fields))

    def _z_shape(self, fields: Fields) -> tuple[int, int, int]:
        grid = Grid(fields)
        return self.model.config.hyper_channels, grid.height // PER_Z, grid.width // PER_Z

    def _z_rows(self, fields: Fields, shape: Sequence[int]) -> Tensor:
        """Return the table indices of z, uint8 [Z h w]."""
        return self.model.z_indices(fields.quality).repeat_interleave(shape[1] * shape[2]).to(self.device)

    def _z_indices(self, fields: Fields, shape: Sequence[int]) -> NDArray[np.uint8]:
        indices: NDArray[np.uint8] = self._z_rows(fields, shape).cpu().numpy()
        return indices

    def _quality(self, fields: Fields) -> Tensor:
        return torch.tensor([fields.quality / 100], device=self.device)

    def _autocast(self) -> torch.autocast:
        in_bf16 = self.precision == "bf16" or (self.precision == "auto" and multiplies_bf16(self.device))
        return torch.autocast(self.device, torch.bfloat16, enabled=in_bf16)

    def _each(self, work: Callable[[T], R], jobs: list[T]) -> list[R]:
        """Do the work on each job, in order, some at a time: coding releases the GIL."""

        def run(job: T) -> R:
            with torch.inference_mode():
                return work(job)

        return each(run, jobs, self.threads)


@dataclass(frozen=True)
class Parsed:
    """Holds all symbols of a file, or of what a region needs."""

    z: Tensor  # float, integers, [1, Z, h, w]
    y: dict[Window, Tensor]  # by tile: int16 [M, h, w]


def z_payload(payloads: Payloads) -> bytes | memoryview:
    """Return the payload of z. Raises BadFile where it is damaged."""
    first = payloads[0]
    if first is None or isinstance(first, list):
        raise BadFile("z chunk: found damage, expected an intact chunk: nothing decodes without it")
    return first


def numbers(symbols: Tensor) -> Symbols:
    """Return integers of any dtype and device as int16 in numpy."""
    out: Symbols = symbols.to("cpu", torch.int16).numpy()
    return out


def cut_padded(pixels: Pixels, window: Window) -> Pixels:
    """Cut out a window that may reach below and right of the picture, whose last row and column go on there."""
    height, width = pixels.shape[:2]
    rows = np.minimum(np.arange(window.top, window.bottom), height - 1)
    columns = np.minimum(np.arange(window.left, window.right), width - 1)
    cut: Pixels = pixels[rows[:, None], columns[None, :]]
    return cut


def to_tensor(pixels: Pixels) -> Tensor:
    """Return uint8 [H, W, 3] as float32 [1, 3, H, W] in 0..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def to_pixels(picture: Tensor) -> Pixels:
    """Return float [1, 3, H, W] in 0..1 as uint8 [H, W, 3]."""
    scaled = (picture[0].permute(1, 2, 0) * 255).round().clamp(0, 255)
    pixels: Pixels = scaled.to("cpu", torch.uint8).numpy()
    return pixels
