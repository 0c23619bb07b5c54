"""Words that the Hub knows in the metadata of a card (huggingface.co/docs/hub/repositories-licenses, …/tasks)."""

LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
    gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl pddl osl-3.0 postgresql
    ofl-1.1 ncsa unlicense zlib deepfloyd-if-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    apple-amlr apple-ascl intel-research h-research openmdw-1.0 fair-noncommercial-research-license
    grok2-community unknown other
    """.split()
)

# Of models of text, the only ones there are here.
TASKS = frozenset(
    """
    text-generation text-classification token-classification question-answering table-question-answering translation
    summarization zero-shot-classification feature-extraction sentence-similarity fill-mask text-ranking
    """.split()
)
