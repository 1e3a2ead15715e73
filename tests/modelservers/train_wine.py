"""Runs in a model server's environment: train_wine.py MODEL.JOBLIB"""

import sys

import joblib
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

wine = load_wine()
joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(wine.data, wine.target), sys.argv[1])
