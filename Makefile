# Checks docs/alerts.yml and runs its unit tests.
.PHONY: alerts
alerts:
	@command -v promtool >/dev/null || { \
	  echo "promtool is missing: apt-get install --no-install-recommends prometheus" >&2; exit 1; }
	promtool check rules docs/alerts.yml
	promtool test rules tests/alerts.yml
