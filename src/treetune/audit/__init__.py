"""For whom a model fails: gaps between groups, answers that change with a name, stereotype pairs, and what helps.

Nothing here is a verdict. Every number has an interval, every test is corrected for the number of tests, and the
smallest gap that could have been seen stands beside each.
"""
