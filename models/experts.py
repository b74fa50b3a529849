"""Experts: what is foretold of a sample, by whom, how surely, and how all of them learn from the sample.

Sections 4 and 6 to 8 of "Coded picture samples" in FORMAT.md. For each sample, in encoder and decoder alike:

    foresee   features     taps less the mean of their plane's nearest samples (4)
              predict      windows of least squares, normalised LMS, six fixed predictors (6)
              blend        prediction 0, a mean of the others that weighs each by its recent errors (6)
              widths       a logistic distribution around each prediction (7): the experts
              weigh        how much each expert is to be believed here: the gate of the circuit (7)
    infer     the circuit's posterior and evidence, once the sample is known (8)
    adapt     LMS, windows and calibrations learn the sample (8)

The circuit is one sum node over the experts' leaves, a hidden choice z of an expert, the same in all planes of a pixel.
Its weights are what the neighbours' posteriors and this pixel's planes before say of z. Many experts for one sample:
after TMW (Meyer, Tischer 1997). Floats are float64 but for features, LMS and windows, which are float32; never fused.

In kernels `at` is the sample's place in the flat planes, y and x its row and column. Errors and posteriors are kept for
three rows (`ring_places`), LANES numbers for each sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.models.mixing import F32, F64, I64, MASS_BITS, NAT, ONE, U64, bit_length, kernel, logarithm, logistic
from laconic.models.planes import LANES, PAD, Canvas, Plane
from laconic.models.windows import Level, Windows, add_sample, dot, solve_block

SIMPLE = 7  # predictors besides windows and blend: LMS, and six fixed ones
SCALED = 2  # experts that have no prediction of their own: around the blend, half and twice as wide
LMS_TAPS, LMS_RATE = 24, 1 / 256
CELLS = 64  # a calibration's, by error energy: each is 1/4 nat wide
CELL_STEP = 1.2840254166877414  # exp(1/4)
FIRST_MEAN, FIRST_RATE, LAST_RATE = 0.1, 0.5, 0.01  # how a calibration's cell starts; its rate falls to just below the last one
FIRST_ERROR = 4.0  # recent errors where there are none yet

# How much a recent error counts for the energy here, by the neighbour where it was. These weights and those below are
# empirical (nearer neighbours weigh more, no derivation gives the numbers) and part of the format.
AT_W, AT_N, AT_NW, AT_NE, AT_WW, AT_NN, AT_NEE, AT_NNE, AT_NWW = 0.1, 0.08, 0.04, 0.06, 0.056, 0.05, 0.045, 0.03, 0.028
FIRST_APART, OTHERS_APART, FIXED_APART, OWN_APART = 0.12, 0.05, 0.04, 0.2  # how far apart predictions are, likewise
BEFORE_HERE, BEFORE_NEXT, BEFORE_AROUND, TWO_BEFORE_HERE = 0.03, 0.013, 0.006, 0.005  # errors of planes before
ENERGY_UNITS, ENERGY_FLOOR, FIRST_CELL = 192.0, 20.0, 17  # from energy to cell: see `widths`
SCALE_OF_MEAN, LEAST_SCALE = 0.72, 0.04  # 1 / (2 ln 2): the scale of a logistic distribution whose mean error is 1
ERROR_UNITS = 256.0  # means and errors are in 1/256 of a sample
INVERSE_UNITS = float(NAT * 256)  # t in 1/256 of a sample: t * inverse >> 16 is t over the scale, in 1/NAT

NEW_POSTERIOR = ONE // LANES  # where nothing is known; ONE in all
LEAST_PRIOR = 2600  # added to the posteriors of the neighbours, which are 8 * ONE in all: no expert is ever ruled out
LEAF_FLOOR = 1 << 18  # added to a leaf's mass of 2**31, likewise


class Experts(NamedTuple):
    """Holds n predictors, number 0 the blend, and m experts, at most LANES: arrays without a shape have LANES elements."""

    n: int
    m: int
    features: NDArray[np.float32]  # as many as the largest window or the LMS has taps
    scaled: NDArray[np.float32]  # room for them, times a weight
    lms: NDArray[np.float32]  # [LMS_TAPS]: coefficients
    prediction: NDArray[np.float64]
    energy: NDArray[np.float64]
    recent: NDArray[np.float64]  # errors of the predictions, in samples: three rows
    calibration: NDArray[np.float64]  # [LANES, CELLS, 2], flat: mean error where energy was such, and its rate
    cells: NDArray[np.int64]  # places in `calibration`
    mean: NDArray[np.int64]  # the distributions' means, in 1/256 of a sample
    inverse: NDArray[np.int64]  # what stands for their scales, see INVERSE_UNITS
    gate: NDArray[np.uint64]  # weights of the circuit's sum node, about ONE in all


class Latents(NamedTuple):
    """Holds what the circuit knows of the choice of an expert."""

    posterior: NDArray[np.uint32]  # parts of ONE: three rows
    evidence: NDArray[np.uint16]  # see Canvas
    found: NDArray[np.uint64]  # room for LANES numbers
    keeps: bool  # is there a plane after this one, that asks for evidence?
    half: int  # half an interval in 1/256 of a sample: its mass, by the density in its middle, is a leaf's likelihood


def count_experts(level: Level) -> int:
    """Return how many experts a level has."""
    return 1 + len(level.windows) + SIMPLE + SCALED


def new_experts(level: Level, plane: Plane) -> Experts:
    """Return the experts of a plane."""
    m, taps = count_experts(level), max([LMS_TAPS, *(window.taps for window in level.windows)])
    calibration, mean = np.zeros((LANES, CELLS, 2)), FIRST_MEAN
    for cell in range(CELLS):
        calibration[:, cell] = mean, FIRST_RATE
        mean *= CELL_STEP
    return Experts(
        n=m - SCALED,
        m=m,
        features=np.zeros(taps, np.float32),
        scaled=np.zeros(taps, np.float32),
        lms=np.zeros(LMS_TAPS, np.float32),
        prediction=np.zeros(LANES),
        energy=np.zeros(LANES),
        recent=np.full(3 * plane.stride * LANES, FIRST_ERROR),
        calibration=calibration.reshape(-1),
        cells=np.zeros(LANES, np.int64),
        mean=np.zeros(LANES, np.int64),
        inverse=np.zeros(LANES, np.int64),
        gate=np.zeros(LANES, np.uint64),
    )


def new_latents(canvas: Canvas, c: int, plane: Plane) -> Latents:
    """Return the circuit's memory for plane c."""
    return Latents(
        posterior=np.full(3 * plane.stride * LANES, NEW_POSTERIOR, np.uint32),
        evidence=canvas.evidence,
        found=np.zeros(LANES, np.uint64),
        keeps=c + 1 < len(canvas.planes),
        half=int(128 / plane.unit),
    )


@kernel
def foresee(at: int, y: int, x: int, plane: Plane, windows: Windows, experts: Experts, latents: Latents) -> Any:
    """Make predictions, distributions and the gate.

    Returns what `adapt` takes: this plane's mean near here, the features' power.
    """
    solve_block(windows)
    base = gather_features(at, plane, experts)
    power = predict(at, base, plane, windows, experts)
    blend(y, x, plane, experts)
    widths(at, y, x, windows.sizes.size, plane, experts)
    weigh(at, y, x, plane, experts, latents)
    return base, power


@kernel
def ring_places(y: int, x: int, plane: Plane) -> Any:
    """Return the places of this sample, of the one above and of the one two above, in arrays of three rows."""
    here = U64((y % 3 * plane.stride + PAD + x) * LANES)
    north = U64(((y + 2) % 3 * plane.stride + PAD + x) * LANES)
    far = U64(((y + 1) % 3 * plane.stride + PAD + x) * LANES)
    return here, north, far


@kernel
def gather_features(at: int, plane: Plane, experts: Experts) -> Any:
    """Set the features (4): taps less the mean of the four nearest in their plane, as of 8 bits.

    Returns this plane's mean.
    """
    s, stride = plane.samples, plane.stride
    base = mean_of_four(at, s, stride)
    base1 = base2 = base
    if plane.before.size > 0:
        base1 = mean_of_four(at + plane.before[0], s, stride)
    if plane.before.size > 1:
        base2 = mean_of_four(at + plane.before[1], s, stride)
    for i in range(experts.features.size):
        b = plane.bases[i]
        difference = s[at + plane.taps[i]] - (base if b == 0 else base1 if b == 1 else base2)
        experts.features[i] = F32(difference * plane.unit)
    return base


@kernel
def mean_of_four(at: int, s: NDArray[np.int32], stride: int) -> Any:
    """Return the mean of W, N, NW, NE, a float."""
    return (s[at - 1] + s[at - stride] + s[at - stride - 1] + s[at - stride + 1]) * 0.25


@kernel
def predict(at: int, base: float, plane: Plane, windows: Windows, experts: Experts) -> Any:
    """Make predictions 1 .. n - 1 (6): windows, LMS, fixed ones. Returns the power of the LMS's features."""
    out, f, n = experts.prediction, experts.features, windows.sizes.size
    for m in range(n):
        out[1 + m] = base + F64(dot(windows.coefficients[m, windows.state[0]], f, windows.sizes[m])) / plane.unit
    out[1 + n] = base + F64(dot(experts.lms, f, LMS_TAPS)) / plane.unit
    fixed(at, 2 + n, plane, out)
    for k in range(1, experts.n):
        p = out[k]
        out[k] = min(p, F64(plane.top)) if p >= 0.0 else 0.0  # also where it is not a number
    return F64(dot(f, f, LMS_TAPS))


@kernel
def fixed(at: int, k: int, plane: Plane, out: NDArray[np.float64]) -> None:
    """Make six predictions from number k on: in this plane, or in the difference to the plane before."""
    s, up = plane.samples, plane.stride
    w, n, nw, ne = s[at - 1], s[at - up], s[at - up - 1], s[at - up + 1]
    if plane.before.size == 0:
        out[k], out[k + 1], out[k + 2] = med(w, n, nw), (w + n) * 0.5 + (ne - nw) * 0.25, w + ne - n
        out[k + 3], out[k + 4], out[k + 5] = 2 * n - s[at - 2 * up], 2 * w - s[at - 2], n
        return
    b = at + plane.before[0]
    dw, dn, dnw, dne = w - s[b - 1], n - s[b - up], nw - s[b - up - 1], ne - s[b - up + 1]
    out[k], out[k + 1] = s[b] + med(dw, dn, dnw), s[b] + (dw + dn) * 0.375 + (dne + dnw) * 0.125
    out[k + 2], out[k + 3], out[k + 4], out[k + 5] = s[b] + dw, s[b] + dn, n + w - nw, (n + w) * 0.5 + (ne - nw) * 0.25
    if plane.before.size > 1:
        c = at + plane.before[1]
        out[k + 4] = s[c] + ((w - s[c - 1]) + (n - s[c - up])) * 0.5


@kernel
def med(w: int, n: int, nw: int) -> Any:
    """Return the prediction of the median edge detector of JPEG-LS (LOCO-I)."""
    low, high = min(w, n), max(w, n)
    return low if nw >= high else high if nw <= low else w + n - nw


@kernel
def blend(y: int, x: int, plane: Plane, experts: Experts) -> None:
    """Make prediction 0 (6): the mean of the others, each weighing as its recent error near here to the power -4."""
    r, p = experts.recent, experts.prediction
    here, north, far = ring_places(y, x, plane)
    one, two = U64(LANES), U64(2 * LANES)
    total = weighted = 0.0
    for k in range(U64(1), U64(experts.n)):
        # W and N count twice; NW, NE, WW, NN once. The 4.0 keeps a predictor that has been right from weighing all.
        near = (r[here - one + k] + r[north + k]) * 2.0 + (r[north - one + k] + r[north + one + k])
        e = (near + (r[here - two + k] + r[far + k]) + 4.0) * plane.unit
        weight = 1.0 / (e * e)
        weight *= weight
        total += weight
        weighted += weight * p[k]
    p[0] = weighted / total


@kernel
def widths(at: int, y: int, x: int, n_windows: int, plane: Plane, experts: Experts) -> None:
    """Set each expert's distribution (7): around its prediction, as wide as errors were where the energy was as now.

    The energy is weighted recent errors near here, errors of the planes before, and the predictors' disagreement. Its
    logarithm chooses a cell of the expert's calibration.
    """
    measure_energy(at, y, x, n_windows, plane, experts)
    p = experts.prediction
    for k in range(U64(experts.n)):
        found = logarithm(U64(experts.energy[k] * ENERGY_UNITS + ENERGY_FLOOR)) >> I64(10)  # in 1/4 nat
        cell = min(max(found + I64(FIRST_CELL), I64(0)), I64(CELLS - 1))
        experts.cells[k] = (I64(k) * CELLS + cell) * 2
        scale = max(experts.calibration[experts.cells[k]] * SCALE_OF_MEAN, LEAST_SCALE)
        experts.mean[k] = I64(p[k] * ERROR_UNITS + 0.5)
        experts.inverse[k] = I64(INVERSE_UNITS / scale)
    experts.mean[experts.n] = experts.mean[experts.n + 1] = experts.mean[0]
    experts.inverse[experts.n] = experts.inverse[0] * I64(2)
    experts.inverse[experts.n + 1] = experts.inverse[0] >> I64(1)


@kernel
def measure_energy(at: int, y: int, x: int, n_windows: int, plane: Plane, experts: Experts) -> None:
    """Set each expert's energy, in samples: about how large its error may be."""
    r, p = experts.recent, experts.prediction
    here, north, far = ring_places(y, x, plane)
    one, two = U64(LANES), U64(2 * LANES)
    common = disagreement(n_windows, p) + errors_before(at, plane)
    for k in range(U64(experts.n)):
        side = r[here - one + k] * AT_W + r[north + k] * AT_N + r[north - one + k] * AT_NW + r[north + one + k] * AT_NE
        side += r[here - two + k] * AT_WW + r[far + k] * AT_NN + r[north + two + k] * AT_NEE
        side = side + r[far + one + k] * AT_NNE + r[north - two + k] * AT_NWW
        experts.energy[k] = side + common + OWN_APART * abs(p[k] - p[0])


@kernel
def disagreement(n_windows: int, p: NDArray[np.float64]) -> Any:
    """Return how far windows, LMS and the first fixed predictor are from the blend, weighted."""
    total = 0.0
    for k in range(n_windows + 1):
        total += (FIRST_APART if k == 0 else OTHERS_APART) * abs(p[1 + k] - p[0])
    return total + FIXED_APART * abs(p[2 + n_windows] - p[0])


@kernel
def errors_before(at: int, plane: Plane) -> Any:
    """Return the errors of the planes before at this place and around it, weighted."""
    if plane.before.size == 0:
        return 0.0
    e, up, b = plane.errors, plane.stride, at + plane.before[0]
    side = abs(e[b - 1]) + abs(e[b - up]) + abs(e[b + up + 1]) + abs(e[b + up - 1])
    total = BEFORE_HERE * abs(e[b]) + BEFORE_NEXT * (abs(e[b + 1]) + abs(e[b + up])) + BEFORE_AROUND * side
    if plane.before.size == 1:
        return total * 0.5 / ERROR_UNITS
    return (total + TWO_BEFORE_HERE * abs(e[at + plane.before[1]])) / ERROR_UNITS


@kernel
def weigh(at: int, y: int, x: int, plane: Plane, experts: Experts, latents: Latents) -> None:
    """Set the gate (7): the sum of the neighbours' posteriors, times the evidence of planes before: about ONE."""
    q, w, total = latents.posterior, latents.found, U64(0)
    here, north, far = ring_places(y, x, plane)
    one, two, pixel = U64(LANES), U64(2 * LANES), U64((at - plane.start) * LANES)
    for k in range(U64(experts.m)):  # W and N count twice, as in `blend`
        side = q[north - one + k] + q[north + one + k] + q[here - two + k] + q[far + k]
        w[k] = U64(2) * (U64(q[here - one + k]) + U64(q[north + k])) + U64(side) + U64(LEAST_PRIOR)
    if plane.before.size > 0:
        for k in range(U64(experts.m)):
            w[k] *= U64(latents.evidence[pixel + k])
    for k in range(U64(experts.m)):
        total += w[k]
    shift = U64(max(bit_length(total) - I64(16), I64(0)))  # a shift is cheaper than a division by the total
    for k in range(U64(experts.m)):
        experts.gate[k] = (w[k] >> shift) + U64(1)


@kernel
def infer(at: int, value: int, ring: int, plane: Plane, experts: Experts, latents: Latents) -> None:
    """Set posterior and evidence of the choice of an expert, given the sample (8).

    ring: its place in arrays of three rows.
    """
    found, m, pixel = latents.found, U64(experts.m), U64((at - plane.start) * LANES)
    total = U64(0)
    for k in range(m):
        found[k] = leaf(k, value, experts, latents)
    for k in range(m):
        total += experts.gate[k] * found[k]
    shift, scale = normaliser(total)
    for k in range(m):
        latents.posterior[ring + k] = (experts.gate[k] * found[k] >> shift) * scale >> U64(32)
    if latents.keeps:
        total = U64(0)
        for k in range(m):
            found[k] *= U64(latents.evidence[pixel + k])
            total += found[k]
        shift, scale = normaliser(total)
        for k in range(m):
            share = (found[k] >> shift) * scale >> U64(32)
            latents.evidence[pixel + k] = min(max(share, U64(1)), U64(ONE - 1))


@kernel
def leaf(k: int, value: int, experts: Experts, latents: Latents) -> Any:
    """Return the likelihood of a sample by expert k, of 2**31: density F (1 - F) over the scale, times interval."""
    below = logistic(((I64(value) << I64(8)) - experts.mean[k]) * experts.inverse[k] >> I64(16)) >> U64(8)
    slope = below * (U64(1 << (MASS_BITS - 8)) - below) >> U64(15)  # for 1 nat
    mass = slope * (U64(experts.inverse[k]) * U64(latents.half) >> U64(11)) >> U64(16)
    return min(mass, U64(1 << MASS_BITS)) + U64(LEAF_FLOOR)


@kernel
def normaliser(total: int) -> Any:
    """Return (shift, scale): (v >> shift) * scale >> 32 is v's share of the total, of ONE, rounded down.

    total: 2**18 or more.
    """
    shift = U64(max(bit_length(total) - I64(32), I64(0)))
    return shift, (U64(1) << U64(48)) // (total >> shift)


@kernel
def adapt(
    value: int, ring: int, base: float, power: float, plane: Plane, windows: Windows, experts: Experts
) -> None:
    """Let everything that predicts learn the sample (8). ring: as of `infer`. base, power: what `foresee` returned."""
    n_windows = windows.sizes.size
    wide = experts.calibration[experts.cells[0]] * plane.unit  # as it was when the sample was foretold
    adapt_lms(value, power, 1 + n_windows, plane, experts)
    calibrate(value, ring, experts)
    if n_windows > 0:
        weight = 1.0 / (0.3 * wide * wide + 0.5 * wide + 0.5)  # a sample counts less where errors are large anyway
        add_sample(windows, experts.features, experts.scaled, (value - base) * plane.unit, weight)


@kernel
def adapt_lms(value: int, power: float, k: int, plane: Plane, experts: Experts) -> None:
    """Let the LMS, which is predictor k, take a step down the gradient of its squared error, over power and noise."""
    error = (value - experts.prediction[k]) * plane.unit
    spread = experts.calibration[experts.cells[k]] * plane.unit
    step = F32(LMS_RATE * error / (power + 20.0 * spread * spread + 1.0))
    for i in range(U64(LMS_TAPS)):
        experts.lms[i] += step * experts.features[i]


@kernel
def calibrate(value: int, ring: int, experts: Experts) -> None:
    """Keep each prediction's error, and move its cell's mean error towards it: by 1 / n at first, then by 1 %."""
    for k in range(U64(experts.n)):
        e = abs(experts.prediction[k] - value)
        experts.recent[ring + k] = e
        cell = experts.cells[k]
        rate = experts.calibration[cell + 1]
        experts.calibration[cell] += (e - experts.calibration[cell]) * rate
        if rate > LAST_RATE:
            experts.calibration[cell + 1] = rate / (1.0 + rate)


@kernel
def forget(ring: int, experts: Experts, latents: Latents) -> None:
    """Note a sample that was not foretold, because a guess was sure of it (11): no errors, and no posterior."""
    for k in range(U64(LANES)):
        experts.recent[U64(ring) + k] = 0.0
        latents.posterior[U64(ring) + k] = np.uint32(NEW_POSTERIOR)


@kernel
def end_row_of_experts(y: int, plane: Plane, experts: Experts) -> None:
    """Fill the room around a row of recent errors."""
    first = (y % 3 * plane.stride + PAD) * LANES
    end = first + (plane.width - 1) * LANES
    for i in range(LANES, (PAD + 1) * LANES, LANES):
        for k in range(LANES):
            experts.recent[first - i + k] = experts.recent[first + k]
            experts.recent[end + i + k] = experts.recent[end + k]
