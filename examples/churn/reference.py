"""Reference for the churn example: scikit-learn's LogisticRegression on the same
features and the same split. The features are computed here from the raw CSV,
independently of the host; only which rows are the test comes from it:

    host run examples/churn/pipeline.toml
    host show split.test --export test.csv
    python reference.py examples/churn/telco_churn.csv test.csv

Made with Python 3.11, scikit-learn 1.5.2, pandas 3.1.1.
"""
import json
import sys

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

CATEGORIES = ["multiple_lines", "internet_service", "online_security", "online_backup", "device_protection",
              "tech_support", "streaming_tv", "streaming_movies", "contract", "payment_method"]
SCALED = ["tenure", "monthly_charges", "total_charges", "log_charges", "charges_per_month"]

raw = pd.read_csv(sys.argv[1])
test = raw["rownames"].isin(pd.read_csv(sys.argv[2])["rownames"]).to_numpy()
raw["total_charges"] = raw["total_charges"].fillna(0.0)
raw["log_charges"] = np.log1p(raw["monthly_charges"])
raw["charges_per_month"] = raw["total_charges"] / raw["tenure"].clip(lower=1)
raw["new_customer"] = (raw["tenure"] <= 6).astype(float)
label = (raw["churn"] == "Yes").to_numpy()
numbers = ["female", "senior_citizen", "partner", "dependents", "phone_service", "paperless_billing", "new_customer"]
features = pd.concat([raw[numbers + SCALED], pd.get_dummies(raw[CATEGORIES], drop_first=True)], axis=1).astype(float)
fitted = features.loc[~test, SCALED]
features[SCALED] = (features[SCALED] - fitted.mean()) / fitted.std(ddof=0)

for c in (1.0, 1e6):
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(features[~test], label[~test])
    p = model.predict_proba(features[test])[:, 1]
    print(json.dumps({
        "C": c, "train": int((~test).sum()), "test": int(test.sum()), "features": features.shape[1],
        "auc": round(roc_auc_score(label[test], p), 9), "pr_auc": round(average_precision_score(label[test], p), 9),
        "log_loss": round(log_loss(label[test], p), 9), "accuracy": round(accuracy_score(label[test], p >= 0.5), 9),
    }))
