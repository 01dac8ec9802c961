#!/usr/bin/python3
"""Fits the polynomials of nn/math.h (float build): exp, erf, tanh, log.

Run it to see the coefficients that stand in the header, and the error each has before rounding:

    /usr/bin/python3 tools/reference/fit_math.py

Method: weighted least squares on a dense Chebyshev grid, re-weighted (Lawson) until the error is nearly equioscillating.
The leading coefficients that must be exact (1, x, …) are taken out of the fit. Needs numpy and scipy.
"""
import numpy as np
from scipy import special


def minimax(function, degree, low, high, weight=lambda x: np.ones_like(x), odd=False, rounds=400):
    """Coefficients c of sum c[i] x^i (odd: in x^2) near the best max-norm fit of function*weight on [low, high]."""
    n = 4000
    x = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    basis = np.vander(x * x if odd else x, degree + 1, increasing=True) * weight(x)[:, None]
    target = function(x) * weight(x)
    lawson = np.ones(n) / n
    for _ in range(rounds):
        root = np.sqrt(lawson)[:, None]
        c, *_ = np.linalg.lstsq(basis * root, target * root[:, 0], rcond=None)
        error = np.abs(basis @ c - target)
        lawson *= error
        lawson /= lawson.sum()
    return c, error.max()


def log_rest(f):
    """(log(1 + f) - f + f^2/2) / f^3; near 0, where that cancels, by its series."""
    series = sum((-1) ** n * f**n / (n + 3) for n in range(12))
    return np.where(np.abs(f) < 0.05, series, (np.log1p(f) - f + f * f / 2) / f**3)


def show(name, c, error):
    print(f"{name}: max weighted error {error:.2e}")
    for i, v in enumerate(c):
        print(f"    c{i} = {float(np.float32(v)).hex()}  /* {np.float32(v):.9g} */")


def main():
    half = np.log(2) / 2 * 1.0005
    # exp(r) = 1 + r + r^2 q(r); error relative to exp(r)
    show("exp q", *minimax(lambda r: (np.expm1(r) - r) / r**2, 4, -half, half, lambda r: r**2 * np.exp(-r)))
    # erf(x) = x + x p(x^2), |x| <= 0.9375; error relative to erf
    show("erf p", *minimax(lambda x: (special.erf(x) - x) / x, 6, 1e-9, 0.9375, lambda x: x / special.erf(x), odd=True))
    # erf(x) = 1 - exp(-(x + x l(x))), 0.9375 <= x <= 4; error relative to erf, that is weighted by erfc/erf
    show("erf l", *minimax(lambda x: -np.log(special.erfc(x)) / x - 1, 6, 0.92, 4.0,
                           lambda x: x * special.erfc(x) / special.erf(x)))
    # tanh(x) = x + x^3 t(x^2), |x| <= 0.625; error relative to tanh
    show("tanh t", *minimax(lambda x: (np.tanh(x) - x) / x**3, 4, 1e-3, 0.625, lambda x: x**3 / np.tanh(x), odd=True))
    # log(1 + f) = f - f^2/2 + f^3 l(f), sqrt(1/2) <= 1 + f <= sqrt(2); error relative to log
    show("log l", *minimax(log_rest, 7, np.sqrt(0.5) - 1, np.sqrt(2) - 1, lambda f: f**3 / np.log1p(f)))


if __name__ == "__main__":
    main()
