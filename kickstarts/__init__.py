"""Image definitions as kickstarts: KIND/BRANCH.ks for each kind and branch, and what they share in include/."""
