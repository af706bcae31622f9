"""Operations: what operators read and do, as typed functions. Commands and routes are their faces."""
