"""What a trained agent's networks have learnt of its world, as numbers: what `crl analyze` measures and draws.

Every module is one analysis: `reachability` (values over a maze beside distances, of `geodesics`), `similarity`,
`embedding`, `probe`, `gradients` and `spectra`. `subject` is a trained agent as they see it, `states` what they look
at, `correlations` how two orders are compared; `study` puts all of it together, and `pictures` draws.
"""
