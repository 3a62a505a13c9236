"""Who computes the answers: transformers in this process, CTranslate2 on a processor, or a server over HTTP."""
