-- Lines of src/core that no spec reaches, each with its reason: file -> list of { why = ..., lines ... }.
return {}
